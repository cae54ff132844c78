package ioctl

import "context"

// Promote makes a clone the owner of its origin and of the snapshots before the
// origin. The former owner becomes a clone.
//
// If a snapshot to move has the name of a snapshot of the clone, Promote changes
// nothing and returns EEXIST and that short name as conflict.
//
//	EINVAL   the file system is not a clone
//	EBUSY    a snapshot to move is mounted
func (h *Handle) Promote(ctx context.Context, name string) (conflict string, err error) {
	c := newCommand(name)
	defer c.free()
	if err := h.change(ctx, reqPromote, c); err != nil {
		return c.text(atString, stringSize), fail("promote", name, err)
	}
	return "", nil
}
