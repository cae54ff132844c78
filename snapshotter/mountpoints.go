package snapshotter

import (
	"fmt"

	"github.com/containerd/log"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// unplace takes a mountpoint of its own from each template and runtime that was given one:
// ZFS would mount it there, writable. FixBase comes before, so that none is inherited.
func (r *recovery) resetMountpoints(list []zfs.Dataset) {
	for _, d := range list {
		_, isTemplate := r.config.Base.ParseTemplate(d.Name)
		_, isRuntime := r.config.Base.ParseRuntime(d.Name)
		if !isTemplate && !isRuntime || d.Mountpoint == "" || d.Mountpoint[0] != '/' {
			continue
		}
		entry := log.G(r.ctx).WithField("dataset", d.Name).WithField("mountpoint", d.Mountpoint)
		if err := r.pool.SetNative(r.ctx, d.Name, map[string]string{"mountpoint": "legacy"}); err != nil {
			entry.WithError(err).WithField("fix", fmt.Sprintf("zfs set mountpoint=legacy %s", d.Name)).
				Warn("ZFS mounts a dataset of the base by itself, and it could not be put right")
			continue
		}
		entry.Warn("ZFS mounted a dataset of the base by itself: its mountpoint is put right")
	}
}
