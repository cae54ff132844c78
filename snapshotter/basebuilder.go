package snapshotter

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// baseBuilder makes what a base lacks, and remembers what it made.
type baseBuilder struct {
	pool     BasePool
	base     layout.Base
	made     []string // file systems, parents first
	snapshot bool     // whether it took that of empty
	changed  bool
}

// create makes one file system. A step that has begun comes to its end: what it made would
// not be known otherwise.
func (b *baseBuilder) create(ctx context.Context, name string, props map[string]string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := b.pool.Create(context.WithoutCancel(ctx), name, props); err != nil {
		return err
	}
	b.made, b.changed = append(b.made, name), true
	return nil
}

// onceMade are the properties that ZFS writes into the file system itself. It refuses that
// (EACCES) of one with a key of its own that is not mounted, also while it makes it.
var setAfterCreate = []string{"longname"}

// unzoned are the properties that ZFS refuses for a new file system below one that is
// zoned, whatever that file system is itself.
var refusedWhenZoned = []string{"mountpoint", "sharenfs", "sharesmb"}

// makeRoot makes the base itself.
func (b *baseBuilder) makeRoot(ctx context.Context, root string, own map[string]string) error {
	props, err := baseProperties(ctx, b.pool, root, own)
	if err != nil {
		return err
	}
	above := b.above(ctx)
	afterwards := setAfterCreate
	if above["zoned"].Value == "on" {
		afterwards = append(slices.Clone(setAfterCreate), refusedWhenZoned...)
	}
	later := take(props, afterwards)
	if err := b.create(ctx, b.base.String(), props); err != nil {
		_, hasKey := own["encryption"]
		if keyErr := CheckKey(parentName(b.base), above); keyErr != nil && !hasKey {
			return keyErr
		}
		return err
	}
	b.dropInherited(ctx, later)
	if len(later) == 0 {
		return nil
	}
	return b.pool.SetNative(ctx, b.base.String(), later)
}

// leaveInherited takes those of onceMade from props that the base inherits with the same
// value.
func (b *baseBuilder) dropInherited(ctx context.Context, props map[string]string) {
	parent := parentName(b.base)
	for _, name := range setAfterCreate {
		if _, wanted := props[name]; !wanted || parent == "" {
			continue
		}
		above, err := b.pool.Properties(ctx, parent, name)
		if err == nil && above[name].Value == props[name] {
			delete(props, name)
		}
	}
}

// take moves the named properties into a map of their own.
func take(props map[string]string, names []string) map[string]string {
	taken := make(map[string]string)
	for _, name := range names {
		if value, ok := props[name]; ok {
			taken[name] = value
			delete(props, name)
		}
	}
	return taken
}

// above returns what matters of the dataset above the base. Where that cannot be asked,
// making the base fails and says why.
func (b *baseBuilder) above(ctx context.Context) map[string]zfs.Property {
	parent := parentName(b.base)
	if parent == "" {
		return nil
	}
	props, err := b.pool.Properties(ctx, parent, append([]string{"zoned"}, keyProperties...)...)
	if err != nil {
		return nil
	}
	return props
}

// parentName is the name of the dataset above a base, "" for a pool's.
func parentName(base layout.Base) string {
	return base.String()[:max(0, strings.LastIndexByte(base.String(), '/'))]
}

// complete makes what is not in list and mounts the base. A base is mounted last: nothing
// has to be unmounted to undo the rest.
func (b *baseBuilder) complete(ctx context.Context, list []zfs.Dataset) error {
	have := make(map[string]zfs.Dataset)
	for _, d := range list {
		have[d.Name] = d
	}
	empty := b.base.Empty()
	for _, child := range []struct {
		name  string
		props map[string]string
	}{{b.base.Storage(), childProperties}, {b.base.Runtime(), childProperties}, {empty.Dataset(), nil}} {
		if _, ok := have[child.name]; ok {
			continue
		}
		if err := b.create(ctx, child.name, child.props); err != nil {
			return err
		}
	}
	if !have[empty.Dataset()].HasSnapshot(layout.Extracted) {
		if err := b.pool.Apply(ctx, zfs.Snapshot(empty.Snapshot())); err != nil {
			return err
		}
		b.snapshot, b.changed = true, true
	}
	return b.mount(ctx)
}

func (b *baseBuilder) mount(ctx context.Context) error {
	props, err := b.pool.Properties(ctx, b.base.String(), "mounted", "mountpoint")
	if err != nil {
		return err
	}
	if props["mounted"].Value != "no" || !strings.HasPrefix(props["mountpoint"].Value, "/") {
		return nil
	}
	b.changed = true
	return b.pool.Mount(ctx, b.base.String())
}

// rollBack destroys what was made, children first. What has become busy, or has got children
// of other origin, stays and is named.
func (b *baseBuilder) rollBack(ctx context.Context) error {
	empty := b.base.Empty()
	if b.snapshot && !slices.Contains(b.made, empty.Dataset()) {
		if err := b.pool.DestroySnapshot(ctx, empty.Snapshot()); err != nil {
			return fmt.Errorf("taking back %s: %w", empty.Snapshot(), err)
		}
	}
	if len(b.made) == 0 {
		return nil
	}
	made := slices.Clone(b.made)
	slices.Reverse(made)
	left, err := b.pool.Destroy(ctx, layout.Extracted, made)
	if err != nil {
		return fmt.Errorf("taking back %s: %w", b.base, err)
	}
	for _, name := range made { // the first is the reason that the others stay
		if left[name] != nil {
			return fmt.Errorf("taking back %s: %w", name, left[name])
		}
	}
	return nil
}
