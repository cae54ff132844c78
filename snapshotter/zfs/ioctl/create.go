package ioctl

import (
	"context"

	"github.com/zfstpl/zfstpl/snapshotter/zfs/nvlist"
)

// Create creates a file system with user and native properties. It mounts
// nothing. When a property fails, the kernel destroys the file system and Each
// names the property.
//
//	EEXIST             the file system exists
//	ENOENT             its parent does not exist
//	ErrnoWrongParent   its parent is a volume
func (h *Handle) Create(ctx context.Context, name string, props map[string]string) error {
	list, err := Properties(props)
	if err != nil {
		return fail("create", name, err)
	}
	in := nvlist.List{{Name: "type", Value: int32(objsetFilesystem)}}
	if len(list) > 0 {
		in = append(in, nvlist.Pair{Name: "props", Value: list})
	}
	return h.changeList(ctx, "create", name, reqCreate, name, in)
}

// Clone makes the file system name as a clone of a snapshot, with user and
// native properties. One transaction without properties, at least two with: a
// crash between them leaves a clone without them. When a property fails, the
// clone is destroyed again and Each names it.
//
//	EEXIST   name is there
//	ENOENT   the snapshot or name's parent is not
//	EXDEV    they are in different pools
//	EINVAL   origin is no snapshot
//
// A quota of the parent, full or not, is no obstacle.
func (h *Handle) Clone(ctx context.Context, origin, name string, props map[string]string) error {
	list, err := Properties(props)
	if err != nil {
		return fail("clone", name, err)
	}
	in := nvlist.List{{Name: "origin", Value: origin}}
	if len(list) > 0 {
		in = append(in, nvlist.Pair{Name: "props", Value: list})
	}
	return h.changeList(ctx, "clone", name, reqClone, name, in)
}

// changeList makes a call that takes a list and answers one of errnos.
func (h *Handle) changeList(ctx context.Context, op, dataset string, r request, name string, in nvlist.List) error {
	c := newCommand(name)
	defer c.free()
	if err := c.setIn(in); err != nil {
		return fail(op, dataset, err)
	}
	c.wantOut = true
	return failEach(op, dataset, h.change(ctx, r, c), c)
}
