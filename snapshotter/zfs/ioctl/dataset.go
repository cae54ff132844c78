package ioctl

import "context"

// Destroy destroys one file system or snapshot, not what hangs on it. Space
// comes back after the call, see [Handle.WaitFree].
//
// A file system may take what an interrupted receive left below it along.
// A snapshot that .zfs mounted is unmounted.
//
//	ENOENT   it is not there
//	EBUSY    it is mounted, held or, a file system, has snapshots
//	EEXIST   it has children or, a snapshot, clones
func (h *Handle) Destroy(ctx context.Context, name string) error {
	c := newCommand(name)
	defer c.free()
	return fail("destroy", name, h.change(ctx, reqDestroy, c))
}

// Promote makes a clone the owner of its origin and of the snapshots before
// that; the former owner becomes its clone. Snapshots of the former owner
// that .zfs mounted are unmounted.
//
// Where a snapshot that would move has the name of one that the clone has,
// nothing happens, the errno is EEXIST and conflict is the short name.
//
//	EINVAL   it is no clone
//	EBUSY    a snapshot that would move is mounted
func (h *Handle) Promote(ctx context.Context, name string) (conflict string, err error) {
	c := newCommand(name)
	defer c.free()
	if err := h.change(ctx, reqPromote, c); err != nil {
		return c.text(atString, stringSize), fail("promote", name, err)
	}
	return "", nil
}

// Rename gives a file system and all below it, or a snapshot, another name in
// the same pool; a snapshot stays with its file system. Mounts stay as they
// are: nothing is moved to where an inherited mountpoint now says.
//
//	EEXIST   to is there
//	ENOENT   from or to's parent is not
//	EXDEV    they are in different pools, or snapshots of different file systems
//	EINVAL   to is below from
func (h *Handle) Rename(ctx context.Context, from, to string) error {
	const keepMounts = 2
	c := newCommand(from)
	defer c.free()
	c.value, c.cookie = to, keepMounts
	return fail("rename", from, h.change(ctx, reqRename, c))
}
