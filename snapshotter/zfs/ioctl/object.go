package ioctl

import (
	"context"
	"errors"
	"syscall"
	"time"
)

// Object is a file, directory or the like.
type Object struct {
	// Generation is the transaction group that created it. Numbers are reused;
	// number and generation together are unique.
	Generation uint64
	Mode       uint64    // type and permissions, as in stat(2)
	Links      uint64    // how many names it has
	Changed    time.Time // ctime
	// Path is one of its names, as an absolute path in the file system. If it
	// has several names, any of them can be returned, and even one that was
	// removed. Path is "" if the lookup failed; see PathErr.
	Path    string
	PathErr error
}

// NextObject returns the first object in use with a number greater than after, and
// whether there is one. Internal objects of the file system are included.
func (h *Handle) NextObject(ctx context.Context, dataset string, after uint64) (object uint64, found bool, err error) {
	c := newCommand(dataset)
	defer c.free()
	c.obj = after
	err = h.read(ctx, reqNextObj, c)
	if err != nil && !errors.Is(err, syscall.ESRCH) {
		return 0, false, fail("next object", dataset, err)
	}
	// Far after the last object the kernel's arithmetic overflows.
	if object = c.get(atObj); err != nil || object <= after {
		return 0, false, nil
	}
	return object, true, nil
}

// Object returns the state of an object of a file system or snapshot. The kernel
// searches the whole directory for the path, so the cost grows with its size. It is
// several times lower if the snapshot is mounted.
//
//	ENOENT       the object does not exist
//	EOPNOTSUPP   the object is internal to the file system
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
