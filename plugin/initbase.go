package plugin

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/zfstpl/zfstpl/snapshotter"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// MadeBase is a base that InitBase made, or found ready.
type MadeBase struct {
	Root    string // where it is mounted
	Changed bool   // whether there was anything to do
	Harms   []snapshotter.Harm
}

// InitBase makes a base that is mounted at root, or completes one. "" for root means
// DefaultRoot, and wherever an existing base is mounted.
func InitBase(ctx context.Context, base layout.Base, root string, props map[string]string) (made MadeBase, err error) {
	pool, err := OpenPool(ctx, base, zfs.Auto)
	if err != nil {
		return made, err
	}
	defer func() { err = errors.Join(err, pool.Close()) }()
	if err := Writable(pool, base); err != nil {
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
	if made.Changed, err = snapshotter.InitBase(ctx, pool, base, Mountpoint(altroot, root), props); err != nil {
		return made, err
	}
	if made.Harms, err = snapshotter.Harms(ctx, pool, base); err != nil {
		return made, err
	}
	at, err := pool.Properties(ctx, base.String(), "mountpoint")
	made.Root = at["mountpoint"].Value
	return made, err
}

// checkExisting refuses a base that is there already and is mounted elsewhere.
func checkExisting(ctx context.Context, pool *zfs.Client, base layout.Base, root string) error {
	at, err := pool.Properties(ctx, base.String(), "mountpoint", snapshotter.VersionProperty)
	if errors.Is(err, zfs.ErrNotFound) || err == nil && !at[snapshotter.VersionProperty].Local {
		return nil // InitBase says more of one that is not ours
	}
	if err != nil {
		return err
	}
	return checkPlace(ctx, pool, base, at["mountpoint"].Value, root)
}

// RootOf returns where a base is mounted, or will be once it is made. root is where it is
// said to be, or "".
func RootOf(ctx context.Context, base layout.Base, root string) (place string, err error) {
	pool, err := OpenPool(ctx, base, zfs.Auto)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, pool.Close()) }()
	if root != "" {
		altroot, err := pool.Altroot(ctx)
		return Place(altroot, root), err
	}
	props, err := pool.Properties(ctx, base.String(), "mountpoint")
	if err != nil {
		return "", err
	}
	if at := props["mountpoint"].Value; filepath.IsAbs(at) {
		return at, nil
	}
	return "", errors.New("its mountpoint is " + props["mountpoint"].Value)
}
