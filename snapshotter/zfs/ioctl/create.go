package ioctl

import (
	"context"

	"github.com/zfstpl/zfstpl/snapshotter/zfs/nvlist"
)

// Create creates a file system with user and native properties; see [Properties] for
// the values. It does not mount it. The file system and its properties take two
// transactions or more, so a crash can leave the file system without properties. If a
// property fails, the file system is destroyed again and Each has the property.
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

// Clone creates the file system name as a clone of a snapshot, with user and native
// properties. It takes one transaction without properties and at least two with them,
// so a crash can leave a clone without properties. If a property fails, the clone is
// destroyed again and Each has the property.
//
//	EEXIST   name exists
//	ENOENT   the snapshot or the parent of name does not exist
//	EXDEV    the pools differ
//	EINVAL   origin is not a snapshot
//
// A full quota of the parent does not prevent a clone.
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

// changeList makes a call that takes a list and returns a list of errnos.
func (h *Handle) changeList(ctx context.Context, op, dataset string, r request, name string, in nvlist.List) error {
	c := newCommand(name)
	defer c.free()
	if err := c.setIn(in); err != nil {
		return fail(op, dataset, err)
	}
	c.wantOut = true
	return failEach(op, dataset, h.change(ctx, r, c), c)
}
