//go:build linux && (amd64 || arm64 || riscv64)

package ioctl

import (
	"context"
	"slices"

	"github.com/zfstpl/zfstpl/snapshotter/zfs/nvlist"
)

// The calls in this file are those that only tests make: they set up and take
// down what the tests of the other calls need, and show that the package's
// structures hold for them too.

const (
	reqPoolConfigs  request = 0x5a04
	reqDestroy      request = 0x5a18
	reqRename       request = 0x5a1a
	reqDestroySnaps request = 0x5a3b
)

// Destroy destroys one file system or snapshot, without what depends on it.
// The kernel unmounts a snapshot that .zfs mounted.
//
//	ENOENT   it does not exist
//	EBUSY    it is mounted, held or, a file system, has snapshots
//	EEXIST   it has children or, a snapshot, clones
func (h *Handle) Destroy(ctx context.Context, name string) error {
	c := newCommand(name)
	defer c.free()
	return fail("destroy", name, h.change(ctx, reqDestroy, c))
}

// Rename renames a file system and everything below it, or a snapshot, within
// one pool. A snapshot stays with its file system. Mounts stay where they are.
//
//	EEXIST   to exists
//	ENOENT   from or the parent of to does not exist
//	EXDEV    the pools differ, or the file systems of two snapshots do
//	EINVAL   to is below from
func (h *Handle) Rename(ctx context.Context, from, to string) error {
	const keepMounts = 2
	c := newCommand(from)
	defer c.free()
	c.value, c.cookie = to, keepMounts
	return fail("rename", from, h.change(ctx, reqRename, c))
}

// DestroySnapshots destroys snapshots of one pool: all of them, or none if one
// cannot be destroyed. A snapshot that does not exist counts as destroyed. The
// kernel runs the call as a channel program: see [Handle.Run] for what a killed
// process leaves.
//
//	EEXIST   a snapshot has clones
//	EBUSY    a snapshot is held or mounted
//	EXDEV    the pools differ
func (h *Handle) DestroySnapshots(ctx context.Context, names []string) error {
	if len(names) == 0 {
		return nil
	}
	in := nvlist.List{{Name: "snaps", Value: flags(names)}}
	return h.changeList(ctx, "destroy", names[0], reqDestroySnaps, poolOf(names[0]), in)
}

// Pools returns the names of the imported pools, sorted.
func (h *Handle) Pools(ctx context.Context) ([]string, error) {
	c := newCommand("")
	defer c.free()
	c.wantOut = true
	if err := h.read(ctx, reqPoolConfigs, c); err != nil {
		return nil, fail("list pools", "", err)
	}
	reply, _ := c.reply()
	r := nvlist.NewReader(reply)
	var names []string
	for r.Next() {
		names = append(names, string(r.Name()))
	}
	slices.Sort(names)
	return names, fail("list pools", "", r.Err())
}
