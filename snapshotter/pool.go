package snapshotter

import (
	"context"
	"io"

	"github.com/zfstpl/zfstpl/snapshotter/internal/mounts"
	"github.com/zfstpl/zfstpl/snapshotter/internal/reaper"
	"github.com/zfstpl/zfstpl/snapshotter/internal/recovery"
)

// Pool is the interface to ZFS. *zfs.Client implements it and documents the methods. Its errors
// wrap the error values of package zfs.
type Pool interface {
	recovery.Pool
	reaper.Pool
	mounts.Mounter

	// Flush writes back dirty pages, so that the next snapshot contains what programs
	// wrote through mmap.
	Flush(ctx context.Context, filesystem string) error

	// CreateIntentLog has ZFS create the intent log of a file system, which waits for a txg.
	CreateIntentLog(ctx context.Context, filesystem string) error

	// Written returns the bytes of a file system that were written since a snapshot,
	// its own or its origin's.
	Written(ctx context.Context, filesystem, snapshot string) (uint64, error)

	// Attach mounts a snapshot in no mount namespace, until the caller closes the result.
	Attach(ctx context.Context, snapshot string) (io.Closer, error)

	// ProgramsClone reports whether a clone can be part of a transaction with other ops.
	ProgramsClone() bool

	// Objects returns the number of objects in a file system or snapshot.
	Objects(ctx context.Context, name string) (uint64, error)
}
