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
	// layerLimit is how many bytes the files of a layer may have in total. The size of
	// the archive is no bound: it can declare a file of an exabyte of holes, for which
	// ZFS allocates nothing, so that no quota stops it.
	layerLimit = 1 << 40
	// headerMemoryLimit bounds the memory that a layer's directories take.
	// containerd's applier keeps the header of each to the end, when it sets their
	// times.
	headerMemoryLimit = 1 << 30
	// headerOverhead is the memory of such a header without its name and attributes.
	headerOverhead = 512
	// recordLimit is how many bytes the names and attributes of an entry may have.
	// Package tar neither writes nor reads more.
	recordLimit = 1 << 20
	// pathLimit is the length of the longest path: Linux allows 4095 bytes, and for
	// Apply a path begins with a slash.
	pathLimit = 4094
)

// limits counts down what a layer may still use. Apply refuses an entry that exceeds a
// limit, and Compare does not write it.
type limits struct{ bytes, headers int64 }

func newLimits() *limits { return &limits{bytes: layerLimit, headers: headerMemoryLimit} }

// take counts an entry. It returns an error if no layer may have the entry.
func (l *limits) take(h *tar.Header) error {
	switch {
	case h.Size < 0: // package tar checks that for files only
		return fmt.Errorf("it has %d bytes", h.Size)
	case h.Size > l.bytes:
		return fmt.Errorf("its %d bytes make the layer larger than the limit of %d bytes", h.Size, int64(layerLimit))
	case deletesItsDirectory(path.Base(h.Name)):
		return errors.New("it is a whiteout of an impossible name")
	}
	l.bytes -= h.Size
	if h.Typeflag != tar.TypeDir {
		return nil
	}
	if l.headers -= headerMemory(h); l.headers < 0 {
		return fmt.Errorf("with it, the layer's directories take more than %d bytes of memory", int64(headerMemoryLimit))
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

// headerMemory returns how much memory the header of a directory takes, in bytes.
func headerMemory(h *tar.Header) int64 {
	bytes := headerOverhead + len(path.Clean(h.Name))
	for key, value := range h.PAXRecords {
		if strings.HasPrefix(key, xattrKey) {
			bytes += len(key) + len(value)
		}
	}
	return int64(bytes)
}

// deletesItsDirectory reports whether a name is a whiteout of the directory it is in,
// or of the one above. The applier refuses such a whiteout below its root by looking
// at the path; its root here is "/", where that check does not work, and everything
// would be deleted.
func deletesItsDirectory(name string) bool {
	deleted, ok := strings.CutPrefix(name, whiteout)
	return ok && (deleted == "" || deleted == "." || deleted == "..")
}

// trimHeader reduces the header of a directory to what is created from it. It copies
// the strings, because they are parts of larger ones, which would stay in memory.
func trimHeader(h *tar.Header) {
	h.Name, h.Linkname, h.Uname, h.Gname = strings.Clone(h.Name), "", "", ""
	attributes := make(map[string]string)
	for key, value := range h.PAXRecords {
		if strings.HasPrefix(key, xattrKey) {
			attributes[strings.Clone(key)] = strings.Clone(value)
		}
	}
	h.PAXRecords = attributes
	h.Xattrs = nil //nolint:staticcheck // package tar fills it with the same attributes
}

// checkTarget returns an error for a target that no symbolic link can have. A damaged
// or hostile disk can hold one.
func checkTarget(target string) error {
	if target == "" || len(target) > pathLimit+1 {
		return fmt.Errorf("its target has %d bytes", len(target))
	}
	return nil
}
