package diff

import (
	"archive/tar"
	"fmt"
	"path"
	"strings"

	"github.com/containerd/errdefs"
)

const (
	// layerLimit is how many bytes the files of a layer may have in all. What a layer
	// itself has is no bound: an archive can say that a file is an exabyte of holes,
	// and ZFS stores zeros for nothing, so that no quota would end it.
	layerLimit = 1 << 40
	// keptLimit is how much memory its directories may take. containerd's applier
	// keeps the header of each to the end, when it sets their times.
	keptLimit = 1 << 30
	// keptHeader is what such a header takes beside its names and attributes.
	keptHeader = 512
)

// limits is what a layer may still cost. What it holds is small beside what it can
// ask for.
type limits struct{ bytes, kept int64 }

func newLimits() *limits { return &limits{bytes: layerLimit, kept: keptLimit} }

// pass is the filter of a layer's entries.
func (l *limits) pass(h *tar.Header) (bool, error) {
	switch {
	case h.Size < 0: // package tar minds that of files only
		return false, fmt.Errorf("%q has %d bytes: %w", h.Name, h.Size, errdefs.ErrInvalidArgument)
	case h.Size > l.bytes:
		return false, fmt.Errorf("%q makes the layer larger than %d bytes, which none may be: %w", h.Name, int64(layerLimit), errdefs.ErrInvalidArgument)
	case deletesItsDirectory(path.Base(h.Name)):
		return false, fmt.Errorf("%q deletes no name that there can be: %w", h.Name, errdefs.ErrInvalidArgument)
	}
	l.bytes -= h.Size
	if h.Typeflag != tar.TypeDir {
		return true, nil
	}
	if l.kept -= slim(h); l.kept < 0 {
		return false, fmt.Errorf("%q: with it the layer's directories take more than %d bytes of memory: %w", h.Name, int64(keptLimit), errdefs.ErrInvalidArgument)
	}
	return true, nil
}

// deletesItsDirectory tells whether a whiteout is of no name in its directory. The
// applier refuses those below its root, by a look at the path; ours is "/", where
// that finds nothing wrong, and all would go.
func deletesItsDirectory(name string) bool {
	of, is := strings.CutPrefix(name, whiteout)
	return is && (of == "" || of == "." || of == "..")
}

// slim has a directory's header keep what is made of it and nothing else, and answers
// what memory that takes. Its texts are parts of larger ones, which would stay.
func slim(h *tar.Header) (bytes int64) {
	h.Name, h.Linkname, h.Uname, h.Gname = strings.Clone(h.Name), "", "", ""
	bytes = keptHeader + int64(len(h.Name))
	attributes := make(map[string]string)
	for key, value := range h.PAXRecords {
		if strings.HasPrefix(key, xattrKey) {
			attributes[strings.Clone(key)] = strings.Clone(value)
			bytes += int64(len(key) + len(value))
		}
	}
	h.PAXRecords = attributes
	h.Xattrs = nil //nolint:staticcheck // the same once more, which package tar fills in
	return bytes
}
