//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/moby/sys/mountinfo"

	"github.com/zfstpl/zfstpl/integration/model"
	"github.com/zfstpl/zfstpl/integration/powercut/ledger"
	"github.com/zfstpl/zfstpl/integration/powercut/tree"
	"github.com/zfstpl/zfstpl/snapshotter/inspect"
	"github.com/zfstpl/zfstpl/snapshotter/inspect/invariants"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// countRemains looks at the pool before the daemon does. What is broken there
// is no error; it only says that a cut was at a moment worth the while.
func (m *machine) countRemains(ctx context.Context) error {
	list, base, err := datasets(ctx)
	if err != nil {
		return err
	}
	var all interface{ Unwrap() []error }
	if errors.As(invariants.Check(base, list), &all) {
		m.remains = len(all.Unwrap())
	}
	return nil
}

// verify holds what the daemon shows after a cut against the ledger, and reads
// every byte of it. It returns what is there.
func (m *machine) verify(ctx context.Context, c *client) (map[string]model.Snapshot, error) {
	found, err := c.everything(ctx)
	if err != nil {
		return nil, err
	}
	matched, wrong := m.book.Match(found)
	if len(wrong) > 0 {
		return nil, fmt.Errorf("the pool is not as it may be:\n%s", strings.Join(wrong, "\n"))
	}
	for _, name := range slices.Sorted(maps.Keys(matched)) {
		snap := matched[name]
		if err := m.notes.Say(ledger.Note{Note: ledger.Sees, Name: name, Snap: &snap}); err != nil {
			return nil, err
		}
	}
	if err := m.notes.Say(ledger.Note{Note: ledger.Settled}); err != nil {
		return nil, err
	}
	trees, err := m.readAll(ctx, c, matched)
	if err != nil {
		return nil, err
	}
	if err := m.checkPool(ctx, c, matched); err != nil {
		return nil, err
	}
	happened, not := m.book.CountInterrupted(found)
	text := fmt.Sprintf("the last cut left %d things to recover and stopped operations of which %d had happened and %d had not; "+
		"%d active, %d committed, %d views as they may be, %d trees read", m.remains, happened, not,
		model.Count(matched, snapshots.KindActive), model.Count(matched, snapshots.KindCommitted), model.Count(matched, snapshots.KindView), trees)
	return matched, m.notes.Say(ledger.Note{Note: ledger.Verified, Text: text})
}

// readAll mounts every snapshot: what is active must be readable, what is
// committed must have the very content that was announced. It returns how many
// trees it has read.
func (m *machine) readAll(ctx context.Context, c *client, all map[string]model.Snapshot) (int, error) {
	hashes := make(map[string]string) // by what is mounted
	for i, name := range slices.Sorted(maps.Keys(all)) {
		snap := all[name]
		if snap.Kind == snapshots.KindView {
			continue // its parent is looked at
		}
		mounts, done, err := c.open(ctx, name, snap, fmt.Sprintf("verify/%d/%d", m.cycle*1000+i, m.cycle))
		if err != nil {
			return 0, err
		}
		source := mounts[0].Source
		if hashes[source] == "" {
			if hashes[source], err = hashOf(ctx, mounts); err != nil {
				return 0, fmt.Errorf("content of %q on %s: %w", name, source, err)
			}
		}
		if snap.Content != "" && snap.Content != hashes[source] {
			return 0, fmt.Errorf("%q on %s has hash %s and was committed with %s", name, source, hashes[source], snap.Content)
		}
		if err := done(); err != nil {
			return 0, err
		}
	}
	return len(hashes), nil
}

// open returns how to mount a snapshot; a committed one is looked at by a view,
// which done removes.
func (c *client) open(ctx context.Context, name string, snap model.Snapshot, key string) (mounts []mount.Mount, done func() error, err error) {
	if snap.Kind == snapshots.KindActive {
		mounts, err = c.sn.Mounts(ctx, name)
		return mounts, func() error { return nil }, err
	}
	mounts, _, err = c.view(ctx, key, name, nil)
	return mounts, func() error { return c.remove(ctx, key) }, err
}

func hashOf(ctx context.Context, mounts []mount.Mount) (hash string, err error) {
	err = mounted(ctx, mounts, func(root string) (err error) {
		hash, err = tree.Hash(root)
		return err
	})
	return hash, err
}

// mounted runs fn in a mounted snapshot. ZFS says EBUSY while a mount of the
// same dataset, here another worker's view of the same layer, is being taken
// away: there is nothing to wait for, so it is tried again.
func mounted(ctx context.Context, mounts []mount.Mount, fn func(root string) error) error {
	for deadline := time.Now().Add(patience); ; time.Sleep(pause) {
		inside := false
		err := mount.WithTempMount(ctx, mounts, func(root string) error {
			inside = true
			return fn(root)
		})
		if inside || !errors.Is(err, syscall.EBUSY) || time.Now().After(deadline) {
			return err
		}
	}
}

// checkPool asserts the invariants once everything that waited for a moment is
// written: no runtime without its active snapshot, and the same snapshots as
// before.
func (m *machine) checkPool(ctx context.Context, c *client, want map[string]model.Snapshot) error {
	if err := c.cleanup(ctx); err != nil {
		return err
	}
	list, base, err := datasets(ctx)
	if err != nil {
		return err
	}
	if err := invariants.Check(base, list); err != nil {
		return fmt.Errorf("the invariants: %w", err)
	}
	runtimes := 0
	for _, d := range list {
		if strings.HasPrefix(d.Name, base.Runtime()+"/") {
			runtimes++
		}
	}
	if active := model.Count(want, snapshots.KindActive); runtimes != active {
		return fmt.Errorf("%d runtimes for %d active snapshots:\n%s", runtimes, active, names(list))
	}
	if err := onlyBaseIsMounted(); err != nil {
		return err
	}
	again, err := c.everything(ctx)
	if err != nil {
		return err
	}
	if changed := model.Differences(model.Records(want), again); len(changed) > 0 {
		return fmt.Errorf("reading the snapshots has changed them:\n%s", strings.Join(changed, "\n"))
	}
	return nil
}

// datasets lists the base without the daemon.
func datasets(ctx context.Context) ([]zfs.Dataset, layout.Base, error) {
	base, err := layout.ParseBase(baseName)
	if err != nil {
		return nil, base, err
	}
	z, err := zfs.Open(ctx, poolName, layout.PropertyPrefix, zfs.Auto)
	if err != nil {
		return nil, base, err
	}
	root, noRoot := os.OpenRoot(rootDir)
	list, incomplete, err := inspect.Datasets(ctx, z, base, root, noRoot)
	err = errors.Join(err, incomplete, z.Close())
	if root != nil {
		err = errors.Join(err, root.Close())
	}
	return list, base, err
}

func names(list []zfs.Dataset) string {
	var all []string
	for _, d := range list {
		all = append(all, d.Name)
	}
	return strings.Join(all, "\n")
}

// onlyBaseIsMounted looks for mounts that nothing has a use for: the base and what
// the daemon holds mounted for its clients are none.
func onlyBaseIsMounted() error {
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("zfs"))
	if err != nil {
		return err
	}
	for _, m := range mounts {
		if m.Source != baseName && filepath.Dir(m.Mountpoint) != filepath.Join(filepath.Dir(socket), "mnt") {
			return fmt.Errorf("%s is mounted at %s", m.Source, m.Mountpoint)
		}
	}
	return nil
}
