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

	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/setup"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// fixBase restores the properties that keep ZFS from mounting datasets of the base, and
// unmounts what ZFS mounted. It returns the properties of the base that do harm.
func fixBase(ctx context.Context, pool *zfs.Client, base layout.Base) ([]setup.Harm, error) {
	state, err := setup.Fix(ctx, pool, base)
	if errors.Is(err, zfs.ErrNotFound) {
		return nil, fmt.Errorf("dataset %s is incomplete: 'zfstpl init %s' completes it (%w)", base, base, err)
	}
	if err != nil {
		return nil, err
	}
	unmountMisplaced(ctx, base, state.RuntimeMountpoint)
	return state.Harms, nil
}

// unmountMisplaced unmounts the misplaced mounts of this mount namespace. A busy mount
// stays, because a program that uses it could lose what it writes.
func unmountMisplaced(ctx context.Context, base layout.Base, runtimePlace string) {
	found, err := mountinfo.GetMounts(func(i *mountinfo.Info) (skip, stop bool) {
		return !misplaced(i, base, runtimePlace), false
	})
	if err != nil {
		log.G(ctx).WithError(err).Warn("failed to read mount table")
		return
	}
	unmountAll(ctx, found, unmount)
}

// unmountAll unmounts with fn, and repeats that as long as one succeeds: a mount keeps
// the mount below it busy, and can cover another one.
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
				entry(i).Warn("unmounted misplaced dataset")
			}
			return why[i.ID] == nil
		})
	}
	for _, i := range mounts {
		entry(i).WithError(why[i.ID]).WithField("fix", "umount "+i.Mountpoint).
			Warn("failed to unmount misplaced dataset")
	}
}

// misplaced reports whether a mount of the base is one that neither zfstpl nor a
// container makes: a writable one below storage, or a runtime at the mountpoint that it
// inherited.
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

// isWritable reports whether neither the mount nor its file system is read-only.
func isWritable(i *mountinfo.Info) bool {
	readOnly := func(options string) bool { return slices.Contains(strings.Split(options, ","), "ro") }
	return !readOnly(i.Options) && !readOnly(i.VFSOptions)
}
