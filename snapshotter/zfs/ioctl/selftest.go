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
// package agree: that structures have their fields where this package expects them,
// and that lists are encoded and decoded correctly. For a file system that does not
// exist it uses the pool's root.
func (h *Handle) SelfTest(ctx context.Context, filesystem string) error {
	return fail("self-test", "", h.selfTest(ctx, filesystem))
}

func (h *Handle) selfTest(ctx context.Context, filesystem string) error {
	pool, _, _ := strings.Cut(filesystem, "/")
	if err := h.testLists(ctx, pool); err != nil {
		return err
	}
	if err := h.testStats(ctx, pool); err != nil {
		return err
	}
	// The pool's root may have another key, which is not loaded.
	_, err := h.FastStat(ctx, filesystem)
	switch {
	case errors.Is(err, syscall.ENOENT):
		filesystem = pool
	case err != nil:
		return err
	}
	return h.testObjects(ctx, filesystem)
}

// testLists runs a program that returns its arguments. In a pool that is imported
// read-only the kernel runs none.
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
			return fmt.Errorf("a channel program returned %q as %v, not %v", name, v, want)
		}
	}
	return nil
}

// testStats compares what the kernel returns both in its structure and in a list.
func (h *Handle) testStats(ctx context.Context, pool string) error {
	c := newCommand(pool)
	defer c.free()
	c.wantOut = true
	if err := h.read(ctx, reqObjsetStats, c); err != nil {
		return fail("stat", pool, err)
	}
	reply, _ := c.reply()
	list, err := nvlist.Decode(reply)
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

// testObjects finds the root directory among the first objects, which are the oldest
// of a file system. If the key of the file system is not loaded, neither this test nor
// a later call can read its objects.
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
