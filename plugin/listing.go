package plugin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/zfstpl/zfstpl/snapshotter/inspect"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// List lists the datasets under a base for a command. It needs no daemon and changes nothing.
// See inspect.List.
func List(ctx context.Context, pool *zfs.Client, base layout.Base) (entries []inspect.Entry, incomplete, err error) {
	root, noRoot := findRoot(ctx, pool, base)
	if root != nil {
		defer func() { err = errors.Join(err, root.Close()) }()
	}
	entries, incomplete, err = inspect.List(ctx, pool, base, root, noRoot)
	if root != nil && isServed(root) {
		inspect.MarkReady(base, entries)
	}
	if incomplete == nil && pool.ReadOnly() {
		incomplete = fmt.Errorf("pool %s is imported read-only, and ZFS has not replayed its intent log", base.Pool())
	}
	return entries, incomplete, err
}

// isServed reports whether a daemon has the lock of the base with a root directory.
func isServed(root *os.Root) bool {
	file, err := root.Open(lockName)
	if err != nil {
		return false
	}
	defer file.Close()
	l := &baseLock{file}
	owner, _ := l.readOwner()
	return l.taken() && strings.Contains(owner, ", "+purposeServing)
}

// findRoot opens the root directory of a base if it is mounted. The error is the reason if it is
// not.
func findRoot(ctx context.Context, pool *zfs.Client, base layout.Base) (*os.Root, error) {
	props, err := pool.Properties(ctx, base.String(), "mountpoint")
	if err != nil {
		return nil, err
	}
	at := props["mountpoint"].Value
	if !filepath.IsAbs(at) {
		return nil, fmt.Errorf("dataset %s has mountpoint=%s", base, at)
	}
	mounted, err := mountedAt(base.String(), at)
	if err == nil && !mounted {
		err = fmt.Errorf("dataset %s is not mounted at %s", base, at)
	}
	if err != nil {
		return nil, err
	}
	return openRoot(base, at)
}
