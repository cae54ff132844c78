package ioctl

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"syscall"

	"github.com/zfstpl/zfstpl/snapshotter/zfs/nvlist"
)

// SelfTest proves on a file system, without changing it, that the kernel and this
// package mean the same: that structures have their fields where this package
// looks for them, and that lists survive both ways. A file system that does not exist
// yet is tested by its pool's root. Use it as Options.SelfTest:
//
//	func(ctx context.Context, h *ioctl.Handle) error { return h.SelfTest(ctx, filesystem) }
func (h *Handle) SelfTest(ctx context.Context, filesystem string) error {
	pool, _, _ := strings.Cut(filesystem, "/")
	if err := h.testLists(ctx, pool); err != nil {
		return err
	}
	if err := h.testStats(ctx, pool); err != nil {
		return err
	}
	// Another key may belong to the pool's root, and not be loaded.
	_, err := h.FastStat(ctx, filesystem)
	switch {
	case errors.Is(err, syscall.ENOENT):
		filesystem = pool
	case err != nil:
		return err
	}
	return h.testObjects(ctx, filesystem)
}

// testLists has a program return what it was given. In a pool that is imported read-only
// the kernel runs none.
func (h *Handle) testLists(ctx context.Context, pool string) error {
	got, err := h.Run(ctx, pool, Program{
		Source:   `local argv = (...)["argv"]; return { n = -7, s = argv[2], b = true, t = { z = #argv } }`,
		Args:     []string{"1234567", "12345678"},
		ReadOnly: true,
	})
	if errors.Is(err, syscall.EROFS) {
		return nil
	}
	if err != nil {
		return err
	}
	list, _ := got.(nvlist.List)
	for name, want := range map[string]any{
		"n": int64(-7), "s": "12345678", "b": true, "t": nvlist.List{{Name: "z", Value: int64(2)}},
	} {
		if v, _ := list.Lookup(name); !reflect.DeepEqual(v, want) {
			return fmt.Errorf("a channel program's %q came back as %v, not %v", name, v, want)
		}
	}
	return nil
}

// testStats compares what the kernel answers twice, in its structure and in a
// list.
func (h *Handle) testStats(ctx context.Context, pool string) error {
	c := newCommand(pool)
	defer c.free()
	c.wantOut = true
	if err := h.read(ctx, reqObjsetStats, c); err != nil {
		return fail("stat", pool, err)
	}
	answer, _ := c.answer()
	list, err := nvlist.Decode(answer)
	if err != nil {
		return fail("stat", pool, err)
	}
	stats := c.stats()
	for name, got := range map[string]uint64{"guid": stats.GUID, "createtxg": stats.CreateTXG} {
		inner, _ := nvlist.Get[nvlist.List](list, name)
		if want, ok := nvlist.Get[uint64](inner, "value"); !ok || got != want {
			return fmt.Errorf("%s is %d in the structure and %d in the list", name, got, want)
		}
	}
	if stats.Name != pool || stats.Origin != "" || stats.Snapshot || stats.Volume {
		return fmt.Errorf("the pool's root is %+v", stats)
	}
	return nil
}

// testObjects looks for the root directory among the first objects, the
// earliest things in a file system. One whose key is not loaded lets none be read, to
// the test or to any later call.
func (h *Handle) testObjects(ctx context.Context, filesystem string) error {
	var object uint64
	for range 256 {
		next, found, err := h.NextObject(ctx, filesystem, object)
		if errors.Is(err, syscall.EACCES) {
			return nil
		}
		if err != nil {
			return err
		}
		if !found || next <= object {
			break
		}
		object = next
		o, err := h.Object(ctx, filesystem, object)
		if errors.Is(err, syscall.EACCES) {
			return nil
		}
		if err != nil || o.PathErr != nil || o.Path != "/" {
			continue
		}
		if o.Mode&syscall.S_IFMT != syscall.S_IFDIR || o.Links < 2 || o.Changed.Unix() <= 0 {
			return fmt.Errorf("the root directory is %+v", o)
		}
		return nil
	}
	return fmt.Errorf("no root directory among the first objects of %s", filesystem)
}
