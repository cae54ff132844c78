package ioctl

import (
	"context"
	"errors"
	"syscall"
	"time"
)

// Object is a file, directory or the like.
type Object struct {
	// Generation is the transaction group that made it. Numbers are used
	// again; number and generation together are not.
	Generation uint64
	Mode       uint64    // type and permissions, as in stat(2)
	Links      uint64    // how many names it has
	Changed    time.Time // ctime
	// Path is one of its names from the file system's root on, beginning
	// with a slash; which one is not known where it has several, and after
	// one was removed it can be a name that is gone. "" where the lookup
	// failed, see PathErr.
	Path    string
	PathErr error
}

// NextObject answers the first object in use with a greater number than after,
// or false where there is none. Objects of the file system's own count too.
func (h *Handle) NextObject(ctx context.Context, dataset string, after uint64) (object uint64, found bool, err error) {
	c := newCommand(dataset)
	defer c.free()
	c.obj = after
	err = h.read(ctx, reqNextObj, c)
	if err != nil && !errors.Is(err, syscall.ESRCH) {
		return 0, false, fail("next object", dataset, err)
	}
	// Far beyond the last object the kernel's arithmetic overflows.
	if object = c.get(atObj); err != nil || object <= after {
		return 0, false, nil
	}
	return object, true, nil
}

// Object answers what an object of a file system or snapshot is. Finding the
// path reads the whole directory: the cost grows with its size. Mounting the
// snapshot first makes it several times cheaper.
//
//	ENOENT       no such object
//	EOPNOTSUPP   the object is the file system's own
func (h *Handle) Object(ctx context.Context, dataset string, object uint64) (Object, error) {
	c := newCommand(dataset)
	defer c.free()
	c.obj = object
	err := h.read(ctx, reqObjToStats, c)
	// The kernel fills in the rest before it looks for the path.
	o := Object{
		Generation: c.get(atStat),
		Mode:       c.get(atStat + 8),
		Links:      c.get(atStat + 16),
		Changed:    time.Unix(int64(c.get(atStat+24)), int64(c.get(atStat+32))),
	}
	if err != nil && o.Generation == 0 {
		return Object{}, fail("object", dataset, err)
	}
	if err != nil {
		o.PathErr = err
		return o, nil
	}
	o.Path = c.text(atValue, valueSize)
	return o, nil
}
