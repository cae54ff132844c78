package plugin

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/setup"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// MadeBase is a base that InitBase created or found complete.
type MadeBase struct {
	Root    string // where it is mounted
	Changed bool   // whether InitBase changed anything
	Harms   []setup.Harm
}

// InitBase creates a base that is mounted at root, or completes one. An empty root is
// DefaultRoot, or the mountpoint of a base that exists.
func InitBase(ctx context.Context, base layout.Base, root string, props map[string]string) (made MadeBase, err error) {
	pool, err := OpenPool(ctx, base, zfs.Auto)
	if err != nil {
		return made, err
	}
	defer func() { err = errors.Join(err, pool.Close()) }()
	if err := writable(pool, base); err != nil {
		return made, err
	}
	if root == "" {
		root = DefaultRoot
	} else if err := checkExisting(ctx, pool, base, root); err != nil {
		return made, err
	}
	altroot, err := pool.Altroot(ctx)
	if err != nil {
		return made, err
	}
	if made.Changed, err = setup.Init(ctx, pool, base, mountpoint(altroot, root), props); err != nil {
		return made, err
	}
	if made.Harms, err = setup.Harms(ctx, pool, base); err != nil {
		return made, err
	}
	at, err := pool.Properties(ctx, base.String(), "mountpoint")
	made.Root = at["mountpoint"].Value
	return made, err
}

// checkExisting returns an error if the base exists with another mountpoint than root.
func checkExisting(ctx context.Context, pool *zfs.Client, base layout.Base, root string) error {
	at, err := pool.Properties(ctx, base.String(), "mountpoint", layout.VersionProperty)
	if errors.Is(err, zfs.ErrNotFound) || err == nil && !at[layout.VersionProperty].Local {
		return nil // InitBase has a better error for a foreign dataset
	}
	if err != nil {
		return err
	}
	return checkPlace(ctx, pool, base, at["mountpoint"].Value, root)
}

// RootOf returns where a base is mounted, or will be when it is created. root is the
// configured place, or "".
func RootOf(ctx context.Context, base layout.Base, root string) (place string, err error) {
	pool, err := OpenPool(ctx, base, zfs.Auto)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, pool.Close()) }()
	if root != "" {
		altroot, err := pool.Altroot(ctx)
		return placeOf(altroot, root), err
	}
	props, err := pool.Properties(ctx, base.String(), "mountpoint")
	if err != nil {
		return "", err
	}
	if at := props["mountpoint"].Value; filepath.IsAbs(at) {
		return at, nil
	}
	return "", fmt.Errorf("dataset %s has mountpoint=%s", base, props["mountpoint"].Value)
}
