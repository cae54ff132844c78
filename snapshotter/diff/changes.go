package diff

import (
	"context"
	"path"
)

// Change is one change between two sides, for people and programs to read.
type Change struct {
	Kind Kind   `json:"kind"`
	Path string `json:"path"` // absolute, from the root of the file system
	// Type is that of the later side: file, directory, symlink, device or fifo, or
	// "" for a deletion.
	Type string `json:"type,omitempty"`
	Size int64  `json:"size,omitempty"` // of a regular file, in bytes
}

// Changes calls report for each change between two sides: in each directory first for
// deletions, then by name. An error of report ends the comparison.
func (s *Service) Changes(ctx context.Context, sides Sides, report func(Change) error) error {
	pair, err := s.open(ctx, sides)
	if err != nil {
		return err
	}
	err = pair.compare(ctx, changeFunc(report))
	return pair.closeInBackground(ctx)(err)
}

type changeFunc func(Change) error

func (f changeFunc) changed(kind Kind, rel string, n node) error {
	c := Change{Kind: kind, Path: path.Join("/", rel), Type: typeName(n)}
	if n.is(typeRegular) {
		c.Size = n.size
	}
	return f(c)
}

func (f changeFunc) deleted(dir string, names []string, _ bool) error {
	for _, name := range names {
		if err := f(Change{Kind: Deleted, Path: path.Join("/", dir, name)}); err != nil {
			return err
		}
	}
	return nil
}

func typeName(n node) string {
	switch n.mode & typeMask {
	case typeRegular:
		return "file"
	case typeDir:
		return "directory"
	case typeLink:
		return "symlink"
	case typeFifo:
		return "fifo"
	default:
		return "device"
	}
}
