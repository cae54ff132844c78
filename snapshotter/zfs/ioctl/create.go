package ioctl

import (
	"context"

	"github.com/zfstpl/zfstpl/snapshotter/zfs/nvlist"
)

// objsetFilesystem is DMU_OST_ZFS: the only type of objset made here.
const objsetFilesystem = 2

// Create makes a file system with user and native properties; see [Properties]
// for the values. It mounts nothing. The file system and its properties are
// two transactions or more: a crash between them leaves it without them. When
// a property fails, the file system is destroyed again and Each names it.
//
//	EEXIST   it is there
//	ENOENT   its parent is not
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
