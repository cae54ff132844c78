package diff

import (
	"archive/tar"
	"errors"
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
	headerMemoryLimit = 1 << 30
	// keptHeader is what such a header takes beside its names and attributes.
	headerOverhead = 512
	// recordLimit is how many bytes the names and attributes of an entry may have.
	// Package tar neither writes nor reads more.
	recordLimit = 1 << 20
	// pathLimit is how long a path may be: Linux takes 4095 bytes, and for Apply a
	// path begins with a slash.
	pathLimit = 4094
)

// limits is what a layer may still cost. What it holds is small beside what it can
// ask for. Apply refuses what is over a limit, and Compare does not write it.
type limits struct{ bytes, kept int64 }

func newLimits() *limits { return &limits{bytes: layerLimit, kept: headerMemoryLimit} }

// take counts an entry, or returns why no layer may have it.
func (l *limits) take(h *tar.Header) error {
	switch {
	case h.Size < 0: // package tar minds that of files only
		return fmt.Errorf("it has %d bytes", h.Size)
	case h.Size > l.bytes:
		return fmt.Errorf("with its %d bytes the layer is larger than %d bytes, which none may be", h.Size, int64(layerLimit))
	case deletesItsDirectory(path.Base(h.Name)):
		return errors.New("it deletes no name that there can be")
	}
	l.bytes -= h.Size
	if h.Typeflag != tar.TypeDir {
		return nil
	}
	if l.kept -= kept(h); l.kept < 0 {
		return fmt.Errorf("with it the layer's directories take more than %d bytes of memory", int64(headerMemoryLimit))
	}
	return nil
}

// pass is the filter of the entries that Apply reads.
func (l *limits) pass(h *tar.Header) (bool, error) {
	if err := l.take(h); err != nil {
		return false, fmt.Errorf("%q: %w: %w", h.Name, err, errdefs.ErrInvalidArgument)
	}
	if h.Typeflag == tar.TypeDir {
		trimHeader(h)
	}
	return true, nil
}

// kept returns how much memory a directory's header takes as long as it is kept.
func kept(h *tar.Header) int64 {
	bytes := headerOverhead + len(path.Clean(h.Name))
	for key, value := range h.PAXRecords {
		if strings.HasPrefix(key, xattrKey) {
			bytes += len(key) + len(value)
		}
	}
	return int64(bytes)
}

// deletesItsDirectory tells whether a whiteout is of no name in its directory. The
// applier refuses those below its root, by a look at the path; ours is "/", where
// that finds nothing wrong, and all would go.
func deletesItsDirectory(name string) bool {
	of, is := strings.CutPrefix(name, whiteout)
	return is && (of == "" || of == "." || of == "..")
}

// slim has a directory's header keep what is made of it and nothing else. Its texts
// are parts of larger ones, which would stay.
func trimHeader(h *tar.Header) {
	h.Name, h.Linkname, h.Uname, h.Gname = strings.Clone(h.Name), "", "", ""
	attributes := make(map[string]string)
	for key, value := range h.PAXRecords {
		if strings.HasPrefix(key, xattrKey) {
			attributes[strings.Clone(key)] = strings.Clone(value)
		}
	}
	h.PAXRecords = attributes
	h.Xattrs = nil //nolint:staticcheck // the same once more, which package tar fills in
}

// checkTarget returns why no symbolic link can lead to a target. A damaged or
// hostile disk can have one that does.
func checkTarget(target string) error {
	if target == "" || len(target) > pathLimit+1 {
		return fmt.Errorf("its target has %d bytes", len(target))
	}
	return nil
}
