package diff

import (
	"context"
	"path"
)

// Change is something that was changed, for people and programs to read.
type Change struct {
	Kind Kind   `json:"kind"`
	Path string `json:"path"` // from the root on, with a slash
	// What is there now, if anything is.
	Type string `json:"type,omitempty"` // file, directory, symlink, device, fifo
	Size int64  `json:"size,omitempty"` // of a file, in bytes
}

// Changes calls tell for each thing that changed between two sides: in a
// directory first for what was deleted, then by name. An error of tell's ends it.
func (s *Service) Changes(ctx context.Context, sides Sides, tell func(Change) error) error {
	pair, err := s.open(ctx, sides)
	if err != nil {
		return err
	}
	err = pair.compare(ctx, changeFunc(tell))
	return pair.closeInBackground(ctx)(err)
}

type changeFunc func(Change) error

func (t changeFunc) changed(kind Kind, rel string, n node) error {
	c := Change{Kind: kind, Path: path.Join("/", rel), Type: typeName(n)}
	if n.is(typeRegular) {
		c.Size = n.size
	}
	return t(c)
}

func (t changeFunc) deleted(dir string, names []string, _ bool) error {
	for _, name := range names {
		if err := t(Change{Kind: Deleted, Path: path.Join("/", dir, name)}); err != nil {
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
