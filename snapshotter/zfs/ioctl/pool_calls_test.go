//go:build linux && (amd64 || arm64 || riscv64)

package ioctl

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/zfstpl/zfstpl/snapshotter/zfs/nvlist"
)

// The calls in this file are those that only tests make: they set up and take
// down what the tests of the other calls need, and show that the package's
// structures hold for them too.

const (
	reqPoolConfigs  request = 0x5a04
	reqCreate       request = 0x5a17
	reqDestroy      request = 0x5a18
	reqRename       request = 0x5a1a
	reqPromote      request = 0x5a22
	reqSnapshot     request = 0x5a23
	reqInheritProp  request = 0x5a2b
	reqDestroySnaps request = 0x5a3b
)

// Create creates a file system with user and native properties; see [Properties] for
// the values. It does not mount it. The file system and its properties take two
// transactions or more, so a crash can leave the file system without properties. If a
// property fails, the file system is destroyed again and Each has the property.
//
//	EEXIST             the file system exists
//	ENOENT             its parent does not exist
//	errnoWrongParent   its parent is a volume
func (h *Handle) Create(ctx context.Context, name string, props map[string]string) error {
	list, err := Properties(props)
	if err != nil {
		return fail("create", name, err)
	}
	in := nvlist.List{{Name: "type", Value: int32(objsetFilesystem)}}
	if len(list) > 0 {
		in = append(in, nvlist.Pair{Name: "props", Value: list})
	}
	return h.changeList(ctx, "create", reqCreate, name, in)
}

// Snapshots takes snapshots of different file systems of one pool in one
// transaction: all of them with all user properties, or none. Each names the
// snapshots that exist and those whose file system does not.
//
//	EEXIST   a snapshot exists
//	ENOENT   a file system does not exist
//	EXDEV    the pools differ, or two snapshots are of one file system
//	EINVAL   a property is native
func (h *Handle) Snapshots(ctx context.Context, names []string, props map[string]string) error {
	if len(names) == 0 {
		return nil
	}
	in := nvlist.List{{Name: "snaps", Value: flags(names)}}
	list, err := Properties(props)
	if err != nil {
		return fail("snapshot", names[0], err)
	}
	if len(list) > 0 {
		in = append(in, nvlist.Pair{Name: "props", Value: list})
	}
	return h.changeList(ctx, "snapshot", reqSnapshot, poolOf(names[0]), in)
}

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
	const atString = 12336 // char[256]
	if err := h.change(ctx, reqPromote, c); err != nil {
		return c.text(atString, 256), fail("promote", name, err)
	}
	return "", nil
}

// Inherit removes a property from a dataset, which then inherits it. Removing a
// property that is not set succeeds.
//
//	EINVAL   the property cannot be inherited or does not exist
func (h *Handle) Inherit(ctx context.Context, name, property string) error {
	c := newCommand(name)
	defer c.free()
	c.value = property
	return fail("inherit", name, h.change(ctx, reqInheritProp, c))
}

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
	return h.changeList(ctx, "destroy", reqDestroySnaps, poolOf(names[0]), in)
}

// Pools returns the names of the imported pools, sorted.
func (h *Handle) Pools(ctx context.Context) ([]string, error) {
	c := newCommand("")
	defer c.free()
	c.wantOut = true
	if err := h.read(ctx, reqPoolConfigs, c); err != nil {
		return nil, fail("list pools", "", err)
	}
	r := c.reader()
	var names []string
	for r.Next() {
		names = append(names, string(r.Name()))
	}
	slices.Sort(names)
	return names, fail("list pools", "", r.Err())
}

// poolDetails is what the kernel returns of a pool.
type poolDetails struct {
	Pool
	Name, Health                                         string
	GUID, Size, Allocated, Free, Leaked, CheckpointBytes uint64
	ReadOnly                                             bool
}

// details returns what Pool omits too. In a suspended pool it reads no properties.
func (h *Handle) details(ctx context.Context, name string) (d poolDetails, err error) {
	if d.Pool, err = h.Pool(ctx, name); err != nil {
		return d, err
	}
	config, err := h.poolList(ctx, reqPoolStats, name)
	if err != nil {
		return d, err
	}
	d.Name, _ = nvlist.Get[string](config, "name")
	d.GUID, _ = nvlist.Get[uint64](config, "pool_guid")
	tree, _ := nvlist.Get[nvlist.List](config, "vdev_tree")
	if stats, _ := nvlist.Get[[]uint64](tree, "vdev_stats"); len(stats) > 4 { // vdev_stat_t
		d.Health = map[uint64]string{7: "ONLINE"}[stats[1]]
		d.Size = stats[4]
	}
	if stats, _ := nvlist.Get[[]uint64](tree, "checkpoint_stats"); len(stats) > 2 { // pool_checkpoint_stat_t
		d.CheckpointBytes = stats[2]
	}
	if d.Suspended {
		d.Health = "SUSPENDED"
		return d, nil
	}
	list, err := h.poolList(ctx, reqPoolGetProps, name)
	number := func(name string) uint64 {
		p, _ := nvlist.Get[nvlist.List](list, name)
		n, _ := nvlist.Get[uint64](p, "value")
		return n
	}
	d.Size, d.Allocated, d.Free = number("size"), number("allocated"), number("free")
	d.Leaked, d.ReadOnly = number("leaked"), number("readonly") != 0
	return d, err
}

func (h *Handle) poolList(ctx context.Context, r request, name string) (nvlist.List, error) {
	c := newCommand(name)
	defer c.free()
	c.wantOut = true
	if err := h.read(ctx, r, c); err != nil {
		return nil, fail("pool", name, err)
	}
	reply, _ := c.reply()
	return nvlist.Decode(reply)
}

// flags returns the list form of a set of names.
func flags(names []string) nvlist.List {
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	l := make(nvlist.List, len(names))
	for i, name := range names {
		l[i] = nvlist.Pair{Name: name, Value: nvlist.Flag{}}
	}
	return l
}

func poolOf(name string) string {
	if i := strings.IndexAny(name, "/@"); i >= 0 {
		return name[:i]
	}
	return name
}

func TestPoolOfReturnsTheFirstComponent(t *testing.T) {
	for name, want := range map[string]string{"a": "a", "a/b@c": "a", "a@b/c": "a", "": ""} {
		if got := poolOf(name); got != want {
			t.Errorf("%q: got %q", name, got)
		}
	}
}
