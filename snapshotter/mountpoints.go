package snapshotter

import (
	"fmt"

	"github.com/containerd/log"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// resetMountpoints sets mountpoint=legacy on each template and runtime with another
// mountpoint, where ZFS would mount it writable. setup.Fix runs before, so that no mountpoint
// is inherited from storage or runtime.
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
				Warn("failed to reset mountpoint of dataset")
			continue
		}
		entry.Warn("reset mountpoint of dataset")
	}
}
