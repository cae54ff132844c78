package snapshotter

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"

	"github.com/zfstpl/zfstpl/snapshotter/internal/index"
	"github.com/zfstpl/zfstpl/snapshotter/internal/mounts"
)

// MountForm selects how clients mount active snapshots.
type MountForm string

const (
	// MountAuto is MountBind for callers in this process's mount namespace and
	// MountZFS for others, which cannot see a held mount.
	MountAuto MountForm = "auto"
	// MountBind lets clients bind a mount that this process holds. Any number of
	// read-only and writable binds can exist at a time.
	MountBind MountForm = "bind"
	// MountZFS lets clients mount the dataset. A read-only mount fails with EBUSY
	// while the dataset is mounted writable, and the reverse.
	MountZFS MountForm = "zfs"
)

// Check returns an error if f is not a form.
func (f MountForm) Check() error {
	switch f {
	case MountAuto, MountBind, MountZFS:
		return nil
	}
	return fmt.Errorf("%q is not one of %s, %s, %s", string(f), MountAuto, MountBind, MountZFS)
}

// openHolder opens the directory of held mounts, with those of an earlier process. Without a
// directory no mount is held, and clients mount datasets.
func openHolder(pool Pool, config Config) (mounts.Holder, error) {
	if config.MountDir == "" || config.holder != nil || !mounts.Supported {
		return config.holder, nil
	}
	return mounts.Open(config.MountDir, pool, config.runtimeID)
}

// runtimeID returns the ID of a runtime, which names its held mount.
func (c Config) runtimeID(dataset string) (string, bool) {
	id, ok := c.Base.ParseRuntime(dataset)
	return id.String(), ok
}

// mountsOf returns the mounts of a snapshot. If they bind a held mount, it creates that.
func (s *Snapshotter) mountsOf(ctx context.Context, r *index.Entry) ([]mount.Mount, error) {
	var options []string
	if !r.Remapped {
		var err error
		if options, err = idmapOptions(r.Info); err != nil {
			return nil, err
		}
	}
	if r.Info.Kind == snapshots.KindView {
		return []mount.Mount{{Type: "zfs", Source: r.Template.Snapshot(), Options: append([]string{"ro"}, options...)}}, nil
	}
	if !s.binds(ctx) {
		// containerd mounts an unmounted snapshot read-only to look up a user. ZFS refuses
		// that beside a held mount.
		if err := s.mounts.Release(ctx, r.Dataset); err != nil {
			log.G(ctx).WithError(err).WithField("dataset", r.Dataset).WithField("key", r.Info.Name).
				Warn("failed to unmount held mount of snapshot that the client mounts itself")
		}
		return []mount.Mount{{Type: "zfs", Source: r.Dataset, Options: options}}, nil
	}
	path, err := s.hold(ctx, r.Dataset)
	if err != nil {
		return nil, fmt.Errorf("mount of %q: %w", r.Info.Name, err)
	}
	return []mount.Mount{{Type: "bind", Source: path, Options: append([]string{"rbind", "rw"}, options...)}}, nil
}

// binds reports whether the caller of ctx gets bind mounts.
func (s *Snapshotter) binds(ctx context.Context) bool {
	_, other := inOtherMountNamespace(ctx)
	return s.mounts.Holds() && (s.config.Mounts == MountBind || s.config.Mounts == MountAuto && !other)
}

// hold creates the held mount of a runtime and returns its path. It fails with
// ErrFailedPrecondition if the caller does not see the mount. It does not check that without
// a path to the caller's root directory.
func (s *Snapshotter) hold(ctx context.Context, dataset string) (string, error) {
	id, ok := s.config.runtimeID(dataset)
	if !ok {
		return "", fmt.Errorf("%s is not the name of a runtime: %w", dataset, errdefs.ErrFailedPrecondition)
	}
	path, err := s.mounts.Hold(ctx, dataset, id)
	if root, _ := inOtherMountNamespace(ctx); err == nil && root != "" {
		err = s.mounts.CheckVisible(root, dataset, path)
	}
	return path, err
}

// HeldAt returns the runtime whose held mount is at path, if there is one.
func (s *Snapshotter) HeldAt(path string) (dataset string, ok bool) {
	if !s.mounts.Holds() || filepath.Dir(path) != s.mounts.Path() {
		return "", false
	}
	return s.index.Runtime(filepath.Base(path), s.config.runtimeID)
}
