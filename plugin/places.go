package plugin

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/containerd/log"
	"github.com/moby/sys/mountinfo"

	"github.com/zfstpl/zfstpl/snapshotter"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// fixBase puts right what makes ZFS mount datasets of the base by itself, and unmounts
// what it mounted. It returns the properties of the base that do harm.
func fixBase(ctx context.Context, pool *zfs.Client, base layout.Base) ([]snapshotter.Harm, error) {
	state, err := snapshotter.FixBase(ctx, pool, base)
	if errors.Is(err, zfs.ErrNotFound) {
		return nil, fmt.Errorf("dataset %s is not complete: run 'zfstpl init %s', which completes a base (%w)", base, base, err)
	}
	if err != nil {
		return nil, err
	}
	unmountMisplaced(ctx, base, state.RuntimeMountpoint)
	return state.Harms, nil
}

// unmountMisplaced unmounts what should be mounted nowhere, in this mount namespace. What
// is busy stays: a program that uses it could lose what it writes.
func unmountMisplaced(ctx context.Context, base layout.Base, runtimePlace string) {
	found, err := mountinfo.GetMounts(func(i *mountinfo.Info) (skip, stop bool) {
		return !misplaced(i, base, runtimePlace), false
	})
	if err != nil {
		log.G(ctx).WithError(err).Warn("the mount table cannot be read")
		return
	}
	unmountAll(ctx, found, unmount)
}

// unmountAll unmounts with fn, again and again for as long as that gets anywhere: a mount
// keeps the one it is on busy, and can cover another.
func unmountAll(ctx context.Context, mounts []*mountinfo.Info, fn func(id int, path string) error) {
	entry := func(i *mountinfo.Info) *log.Entry {
		return log.G(ctx).WithField("dataset", i.Source).WithField("mountpoint", i.Mountpoint)
	}
	why := make(map[int]error)
	for before := -1; len(mounts) != before; {
		before = len(mounts)
		mounts = slices.DeleteFunc(mounts, func(i *mountinfo.Info) bool {
			why[i.ID] = fn(i.ID, i.Mountpoint)
			if why[i.ID] == nil {
				entry(i).Warn("a dataset of the base was mounted where only ZFS mounts it, and is unmounted")
			}
			return why[i.ID] == nil
		})
	}
	for _, i := range mounts {
		entry(i).WithError(why[i.ID]).WithField("fix", "umount "+i.Mountpoint).
			Warn("a dataset of the base is mounted where only ZFS mounts it, and cannot be unmounted")
	}
}

// misplaced reports whether a mount is one of the base that nothing of ours and no
// container makes: a template's file system, writable, or a runtime below the mountpoint
// that runtimes had.
func misplaced(i *mountinfo.Info, base layout.Base, runtimePlace string) bool {
	if i.FSType != "zfs" || strings.Contains(i.Source, "@") {
		return false
	}
	if i.Source == base.Storage() || strings.HasPrefix(i.Source, base.Storage()+"/") {
		return isWritable(i)
	}
	below, ok := strings.CutPrefix(i.Source, base.Runtime())
	return ok && strings.HasPrefix(runtimePlace, "/") && i.Mountpoint == path.Join(runtimePlace, below) &&
		(below == "" || below[0] == '/')
}

// isWritable reports whether a mount and its file system let anything be written.
func isWritable(i *mountinfo.Info) bool {
	readOnly := func(options string) bool { return slices.Contains(strings.Split(options, ","), "ro") }
	return !readOnly(i.Options) && !readOnly(i.VFSOptions)
}
