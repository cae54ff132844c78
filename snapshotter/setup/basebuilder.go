package setup

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// baseBuilder creates what a base lacks and records what it created.
type baseBuilder struct {
	pool     Pool
	base     layout.Base
	made     []string // file systems that it created, parents first
	snapshot bool     // whether it took the snapshot of empty
	changed  bool
}

// create creates one file system. It ignores the cancellation of ctx once it has begun,
// because the result would be unknown otherwise.
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

// setAfterCreate are the properties that ZFS stores in the file system itself. If the file
// system has its own encryption key and is not mounted, ZFS refuses to set them (EACCES),
// also while it creates the file system.
var setAfterCreate = []string{"longname"}

// refusedWhenZoned are the properties that ZFS refuses for a new file system below a zoned
// one, even if the new one is not zoned.
var refusedWhenZoned = []string{"mountpoint", "sharenfs", "sharesmb"}

// makeRoot creates the base itself.
func (b *baseBuilder) makeRoot(ctx context.Context, root string, own map[string]string) error {
	props, err := baseProperties(ctx, b.pool, root, own)
	if err != nil {
		return err
	}
	parentProps := b.parentProperties(ctx)
	afterwards := setAfterCreate
	if parentProps["zoned"].Value == "on" {
		afterwards = append(slices.Clone(setAfterCreate), refusedWhenZoned...)
	}
	later := extract(props, afterwards)
	if err := b.create(ctx, b.base.String(), props); err != nil {
		_, hasKey := own["encryption"]
		if keyErr := CheckKey(parentName(b.base), parentProps); keyErr != nil && !hasKey {
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

// dropInherited removes from props those of setAfterCreate that the base inherits with the
// same value.
func (b *baseBuilder) dropInherited(ctx context.Context, props map[string]string) {
	parent := parentName(b.base)
	for _, name := range setAfterCreate {
		if _, wanted := props[name]; !wanted || parent == "" {
			continue
		}
		inherited, err := b.pool.Properties(ctx, parent, name)
		if err == nil && inherited[name].Value == props[name] {
			delete(props, name)
		}
	}
}

// extract moves the named properties into a new map and returns it.
func extract(props map[string]string, names []string) map[string]string {
	extracted := make(map[string]string)
	for _, name := range names {
		if value, ok := props[name]; ok {
			extracted[name] = value
			delete(props, name)
		}
	}
	return extracted
}

// parentProperties returns the relevant properties of the dataset above the base. If they
// cannot be read it returns nil: then the creation of the base fails with the reason.
func (b *baseBuilder) parentProperties(ctx context.Context) map[string]zfs.Property {
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

// parentName returns the name of the dataset above a base, "" for the root dataset of a
// pool.
func parentName(base layout.Base) string {
	return base.String()[:max(0, strings.LastIndexByte(base.String(), '/'))]
}

// complete creates what is not in list and mounts the base. It mounts the base last, so
// that a rollback does not have to unmount anything.
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

// mount mounts the base if it has a mountpoint and is not mounted.
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

// rollBack destroys what b created, children first. It returns an error that names a
// dataset that it cannot destroy, for example because another program uses it.
func (b *baseBuilder) rollBack(ctx context.Context) error {
	empty := b.base.Empty()
	if b.snapshot && !slices.Contains(b.made, empty.Dataset()) {
		if err := b.pool.DestroySnapshot(ctx, empty.Snapshot()); err != nil {
			return fmt.Errorf("rollback of %s: %w", empty.Snapshot(), err)
		}
	}
	if len(b.made) == 0 {
		return nil
	}
	made := slices.Clone(b.made)
	slices.Reverse(made)
	left, err := b.pool.Destroy(ctx, layout.Extracted, made)
	if err != nil {
		return fmt.Errorf("rollback of %s: %w", b.base, err)
	}
	for _, name := range made { // the first one left keeps its parents from being destroyed
		if left[name] != nil {
			return fmt.Errorf("rollback of %s: %w", name, left[name])
		}
	}
	return nil
}
