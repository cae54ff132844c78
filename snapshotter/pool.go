package snapshotter

import (
	"context"
	"io"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// Pool is the interface to ZFS. *zfs.Client implements it. Its errors wrap the error values
// of package zfs.
type Pool interface {
	// List returns root and all file systems below it, in any order.
	List(ctx context.Context, root string) ([]zfs.Dataset, error)

	// Apply executes ops in order. If it fails with a known reason, none of them has an
	// effect. zfs.Client documents when a prefix of them may have taken effect.
	Apply(ctx context.Context, ops ...zfs.Op) error

	// Mark sets a user property of a file system, or removes it if value is empty.
	Mark(ctx context.Context, filesystem, prop, value string) error

	// SetNative sets native properties of a file system. It mounts and unmounts nothing.
	SetNative(ctx context.Context, filesystem string, props map[string]string) error

	// Destroy destroys file systems, each with its snapshot own. It returns those that
	// are left, with the reasons.
	Destroy(ctx context.Context, own string, filesystems []string) (map[string]error, error)

	// DestroyForeign destroys all snapshots of a file system except own.
	DestroyForeign(ctx context.Context, own, filesystem string) error

	// DestroySnapshot destroys one snapshot that has no clones.
	DestroySnapshot(ctx context.Context, snapshot string) error

	// Flush writes back dirty pages, so that the next snapshot contains what programs
	// wrote through mmap.
	Flush(ctx context.Context, filesystem string) error

	// Written returns the bytes of a file system that were written since a snapshot,
	// its own or its origin's.
	Written(ctx context.Context, filesystem, snapshot string) (uint64, error)

	// Space returns the space that a file system uses and has available.
	Space(ctx context.Context, filesystem string) (zfs.Space, error)

	// State returns the state of the pool.
	State(ctx context.Context) (zfs.PoolState, error)

	// WaitFreed waits until the space of destroyed datasets is available.
	WaitFreed(ctx context.Context) error

	// Attach mounts a snapshot in no mount namespace, until the caller closes the result.
	Attach(ctx context.Context, snapshot string) (io.Closer, error)

	// Device returns the st_dev of a mounted file system.
	Device(ctx context.Context, filesystem string) (uint64, error)

	// MountAt mounts a file system on a directory, writable.
	MountAt(ctx context.Context, filesystem, dir string) error

	// Objects returns the number of objects in a file system or snapshot.
	Objects(ctx context.Context, name string) (uint64, error)
}
