package snapshotter

import (
	"context"
	"io"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// Pool is what the snapshotter needs of ZFS. *zfs.Client is one.
//
// Errors wrap the kinds of package zfs.
type Pool interface {
	// List answers root and every file system below it, in any order.
	List(ctx context.Context, root string) ([]zfs.Dataset, error)

	// Apply carries out ops in order: all of them, or none when it fails and
	// says why. See zfs.Client for when a first part of them may be left.
	Apply(ctx context.Context, ops ...zfs.Op) error

	// Mark sets a user property of a file system, or takes it away where value is
	// empty.
	Mark(ctx context.Context, filesystem, prop, value string) error

	// SetNative sets native properties of a file system, and mounts and unmounts nothing.
	SetNative(ctx context.Context, filesystem string, props map[string]string) error

	// Destroy destroys file systems, each with its snapshot called own, and
	// answers why each that is left is left.
	Destroy(ctx context.Context, own string, filesystems []string) (map[string]error, error)

	// DestroyForeign destroys the snapshots of a file system, all but the one
	// called own.
	DestroyForeign(ctx context.Context, own, filesystem string) error

	// DestroySnapshot destroys one snapshot that has no clones.
	DestroySnapshot(ctx context.Context, snapshot string) error

	// Flush makes what was written through mmap part of the next snapshot.
	Flush(ctx context.Context, filesystem string) error

	// Written answers the bytes a file system holds that were written since a
	// snapshot before it.
	Written(ctx context.Context, filesystem, snapshot string) (uint64, error)

	// Space answers what a file system occupies.
	Space(ctx context.Context, filesystem string) (zfs.Space, error)

	// State answers what the pool says of room in it.
	State(ctx context.Context) (zfs.PoolState, error)

	// WaitFreed waits until what was destroyed can be written again.
	WaitFreed(ctx context.Context) error

	// Attach mounts a snapshot without giving it a place in any mount namespace,
	// until what it answers is closed.
	Attach(ctx context.Context, snapshot string) (io.Closer, error)

	// Device returns the st_dev of a file system that is mounted somewhere.
	Device(ctx context.Context, filesystem string) (uint64, error)

	// MountAt mounts a file system, writable, on a directory.
	MountAt(ctx context.Context, filesystem, dir string) error

	// Objects answers the number of objects in a file system or snapshot.
	Objects(ctx context.Context, name string) (uint64, error)
}
