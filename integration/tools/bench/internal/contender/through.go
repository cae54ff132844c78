//go:build linux

package contender

import (
	"context"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
)

const (
	templateName = "template"
	// removers is how many callers remove many snapshots.
	removers = 16
)

// root keeps what was not removed from containerd's garbage collector.
var root = snapshots.WithLabels(map[string]string{"containerd.io/gc.root": "bench"})

// Through is a snapshotter as its clients see it.
type Through struct {
	Snapshotter snapshots.Snapshotter
	// Collect makes what was removed go.
	Collect func(context.Context) error
	// Count returns Held.
	Count func(context.Context) (int, error)
}

// MakeTemplate makes the template as an image's layer is made.
func (t *Through) MakeTemplate(ctx context.Context, fill func(root string) error) error {
	const key = "extract"
	mounts, err := t.Snapshotter.Prepare(ctx, key, "", root)
	if err != nil {
		return err
	}
	if err := mount.WithTempMount(ctx, mounts, fill); err != nil {
		return err
	}
	return t.Snapshotter.Commit(ctx, templateName, key, root)
}

// Prepare makes an active snapshot.
func (t *Through) Prepare(ctx context.Context, key string) error {
	_, err := t.Snapshotter.Prepare(ctx, key, templateName, root)
	return err
}

// View makes a read-only snapshot.
func (t *Through) View(ctx context.Context, key string) error {
	_, err := t.Snapshotter.View(ctx, key, templateName, root)
	return err
}

// Commit makes an active snapshot a committed one.
func (t *Through) Commit(ctx context.Context, name, key string) error {
	return t.Snapshotter.Commit(ctx, name, key, root)
}

// Mounts returns how an active snapshot is mounted.
func (t *Through) Mounts(ctx context.Context, key string) ([]mount.Mount, error) {
	return t.Snapshotter.Mounts(ctx, key)
}

// Stat asks for a snapshot's state.
func (t *Through) Stat(ctx context.Context, key string) error {
	_, err := t.Snapshotter.Stat(ctx, key)
	return err
}

// Usage asks for a snapshot's size.
func (t *Through) Usage(ctx context.Context, key string) error {
	_, err := t.Snapshotter.Usage(ctx, key)
	return err
}

// Remove removes snapshots and has them collected.
func (t *Through) Remove(ctx context.Context, keys ...string) error {
	err := Each(ctx, removers, keys, func(ctx context.Context, key string) error {
		return t.Snapshotter.Remove(ctx, key)
	})
	if err != nil {
		return err
	}
	return t.Collect(ctx)
}

// Held counts what is on disk.
func (t *Through) Held(ctx context.Context) (int, error) { return t.Count(ctx) }
