//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"

	"github.com/zfstpl/zfstpl/integration/powercut/tree"
)

// container prepares a container's root and lets it write something.
func (w *worker) container(ctx context.Context) error {
	if len(w.own.Names(snapshots.KindActive)) >= maxActive {
		return w.save(ctx)
	}
	return w.prepareAndWrite(ctx, w.name("web"))
}

func (w *worker) prepareAndWrite(ctx context.Context, key string) error {
	parent := w.pick(snapshots.KindCommitted)
	mounts, snap, err := w.prepare(ctx, key, parent, w.labels(), "", "")
	if err != nil {
		return err
	}
	w.own.Put(key, snap)
	if w.r.IntN(2) == 0 {
		return nil
	}
	return mounted(ctx, mounts, func(root string) error {
		if want, _ := w.own.Get(parent); want.Content != "" {
			if got, err := tree.Hash(root); err != nil || got != want.Content {
				return errors.Join(err, fmt.Errorf("%q has the parent %q and has hash %s instead of %s", key, parent, got, want.Content))
			}
		}
		return tree.Grow(root, w.r)
	})
}

// save commits an active snapshot under a name that is no chain ID: running or
// not, and whatever it was meant for.
func (w *worker) save(ctx context.Context) error {
	key := w.pick(snapshots.KindActive)
	if key == "" {
		return w.container(ctx)
	}
	mounts, err := w.sn.Mounts(ctx, key)
	if err != nil {
		return err
	}
	active, _ := w.own.Get(key)
	name, labels := w.name("saved"), w.labels()
	commit := func(hash string) error {
		snap, err := w.commit(ctx, name, key, active.Parent, hash, "", labels)
		if err == nil {
			w.own.Committed(name, key, snap)
		}
		return err
	}
	live := w.r.IntN(2) == 0
	stop := func() error { return nil }
	grow := func(root string) error {
		if err := tree.Grow(root, w.r); err != nil || !live {
			return err
		}
		stop, err = keepBusy(filepath.Join(root, tree.Busy))
		return err
	}
	return w.fill(ctx, mounts, live, grow, func(hash string) error {
		return errors.Join(commit(hash), stop())
	})
}

// pause is the time between two writes of a busy program: the machine has one
// processor, and others want it.
const pause = 5 * time.Millisecond

// keepBusy writes to a file until it is stopped, as a program does that
// does not know that its container is committed.
func keepBusy(path string) (stop func() error, err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	quit, done := make(chan struct{}), make(chan error)
	go func() {
		block := make([]byte, 4096)
		ticks := time.NewTicker(pause)
		defer ticks.Stop()
		for i := int64(0); ; i++ {
			select {
			case <-quit:
				done <- f.Close()
				return
			case <-ticks.C:
			}
			block[0]++
			if _, err := f.WriteAt(block, i%16*4096); err != nil {
				done <- errors.Join(err, f.Close())
				return
			}
		}
	}()
	return func() error { close(quit); return <-done }, nil
}

// look compares a committed snapshot with what was committed.
func (w *worker) look(ctx context.Context) error {
	name := w.pick(snapshots.KindCommitted)
	if name == "" {
		return nil
	}
	key := w.name("view")
	mounts, snap, err := w.view(ctx, key, name, w.labels())
	if err != nil {
		return err
	}
	w.own.Put(key, snap)
	hash, err := hashOf(ctx, mounts)
	if err != nil {
		return err
	}
	if want, _ := w.own.Get(name); hash != want.Content {
		return fmt.Errorf("%q has hash %s and was committed with %s", name, hash, want.Content)
	}
	if w.r.IntN(3) == 0 {
		return nil
	}
	w.own.Removed(key)
	return w.remove(ctx, key)
}

// replace removes an active snapshot and prepares another under its key, at
// once: the pool may know of both.
func (w *worker) replace(ctx context.Context) error {
	key := w.pick(snapshots.KindActive)
	if key == "" {
		return nil
	}
	if err := w.remove(ctx, key); err != nil {
		return err
	}
	w.own.Removed(key)
	return w.prepareAndWrite(ctx, key)
}
