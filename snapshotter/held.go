package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"

	"github.com/zfstpl/zfstpl/snapshotter/errkind"
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
	case "", MountAuto, MountBind, MountZFS:
		return nil
	}
	return fmt.Errorf("%q is not one of %s, %s, %s", string(f), MountAuto, MountBind, MountZFS)
}

// heldMounts keeps runtimes mounted in a directory, where clients can bind them.
type heldMounts interface {
	// Hold mounts a file system, if it is not mounted yet, and returns the path.
	Hold(ctx context.Context, filesystem, id string) (path string, err error)
	// Release unmounts a file system. It returns nil if it is not mounted.
	Release(filesystem string) error
	// Held returns the file systems that are mounted.
	Held() []string
	// Path returns the directory of the mounts. Each is named by its ID.
	Path() string
	// Visible reports whether a path that Hold returned leads to the same
	// directory from the root directory of another process.
	Visible(root, path string) (bool, error)
}

// openHeld opens the directory of held mounts, with those of an earlier process. Without a
// directory no mount is held, and clients mount datasets.
func (s *Snapshotter) openHeld() (err error) {
	if s.config.MountDir == "" || s.held != nil || !mounts.Supported {
		return nil
	}
	dir, err := mounts.Open(s.config.MountDir, s.pool, s.runtimeID)
	if err == nil {
		s.held = dir
	}
	return err
}

// runtimeID returns the ID of a runtime, which names its held mount.
func (s *Snapshotter) runtimeID(dataset string) (string, bool) {
	id, ok := s.config.Base.ParseRuntime(dataset)
	return id.String(), ok
}

// mountsOf returns the mounts of a snapshot. If they bind a held mount, it creates that.
func (s *Snapshotter) mountsOf(ctx context.Context, r *entry) ([]mount.Mount, error) {
	var options []string
	if !r.Remapped {
		var err error
		if options, err = idmapOptions(r.Info); err != nil {
			return nil, err
		}
	}
	if r.Info.Kind == snapshots.KindView {
		return []mount.Mount{{Type: "zfs", Source: r.template.Snapshot(), Options: append([]string{"ro"}, options...)}}, nil
	}
	if !s.binds(ctx) {
		// containerd mounts an unmounted snapshot read-only to look up a user. ZFS refuses
		// that beside a held mount.
		if err := s.release(ctx, r.Dataset); err != nil {
			log.G(ctx).WithError(err).WithField("dataset", r.Dataset).WithField("key", r.Info.Name).
				Warn("failed to unmount held mount of snapshot that the client mounts itself")
		}
		return []mount.Mount{{Type: "zfs", Source: r.Dataset, Options: options}}, nil
	}
	path, err := s.hold(ctx, r.Dataset)
	if err == nil {
		err = s.checkVisible(ctx, r.Dataset, path)
	}
	if err != nil {
		return nil, fmt.Errorf("mount of %q: %w", r.Info.Name, err)
	}
	return []mount.Mount{{Type: "bind", Source: path, Options: append([]string{"rbind", "rw"}, options...)}}, nil
}

// binds reports whether the caller of ctx gets bind mounts.
func (s *Snapshotter) binds(ctx context.Context) bool {
	switch {
	case s.held == nil:
		return false
	case s.config.Mounts == MountBind:
		return true
	case s.config.Mounts == MountZFS:
		return false
	}
	_, other := inOtherMountNamespace(ctx)
	return !other
}

// checkVisible fails with ErrFailedPrecondition if the caller does not see a held mount:
// in another mount namespace an empty directory may be at its path. It checks nothing if
// there is no path to the caller's root directory.
func (s *Snapshotter) checkVisible(ctx context.Context, dataset, path string) error {
	root, other := inOtherMountNamespace(ctx)
	if !other || root == "" {
		return nil
	}
	visible, err := s.held.Visible(root, path)
	if err != nil {
		return fmt.Errorf("dataset %s: look for the held mount in the caller's mount namespace: %w", dataset, err)
	}
	if !visible {
		return fmt.Errorf("dataset %s: the held mount %s is not visible in the caller's mount namespace: set mounts = \"auto\", or propagate the mounts in %s to that namespace: %w",
			dataset, path, s.held.Path(), errdefs.ErrFailedPrecondition)
	}
	return nil
}

// hold creates the held mount of a runtime and returns its path.
func (s *Snapshotter) hold(ctx context.Context, dataset string) (string, error) {
	id, ok := s.runtimeID(dataset)
	if !ok {
		return "", fmt.Errorf("%s is not the name of a runtime: %w", dataset, errdefs.ErrFailedPrecondition)
	}
	unlock, err := s.mounts.locks.Lock(ctx, dataset)
	if err != nil {
		return "", err
	}
	defer unlock()
	path, err := s.held.Hold(ctx, dataset, id)
	return path, heldError(dataset, err)
}

// release unmounts the held mount of a runtime. It returns nil if there is none.
func (s *Snapshotter) release(ctx context.Context, dataset string) error {
	if s.held == nil {
		return nil
	}
	unlock, err := s.mounts.locks.Lock(ctx, dataset)
	if err != nil {
		return err
	}
	defer unlock()
	return heldError(dataset, s.held.Release(dataset))
}

// heldError adds the dataset and an errdefs kind to an error of a held mount.
func heldError(dataset string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, mounts.ErrForeign):
		return fmt.Errorf("dataset %s: %w: %w", dataset, err, errdefs.ErrFailedPrecondition)
	}
	if k := errkind.Of(err); k != nil {
		return fmt.Errorf("dataset %s: %w: %w", dataset, k, err)
	}
	return fmt.Errorf("dataset %s: %w", dataset, err)
}

// releaseGarbage unmounts the held mounts of garbage, so that a cleanup without a daemon can
// destroy it.
func (s *Snapshotter) releaseGarbage(ctx context.Context) {
	if s.held == nil {
		return
	}
	for _, dataset := range s.held.Held() {
		if !s.index.isGarbage(dataset) {
			continue
		}
		if err := s.release(ctx, dataset); err != nil {
			log.G(ctx).WithError(err).WithField("dataset", dataset).Warn("failed to unmount held mount of removed snapshot")
		}
	}
}

// HeldAt returns the runtime whose held mount is at path, if there is one.
func (s *Snapshotter) HeldAt(path string) (dataset string, ok bool) {
	if s.held == nil || filepath.Dir(path) != s.held.Path() {
		return "", false
	}
	return s.index.runtime(filepath.Base(path), s.runtimeID)
}

// runtime returns the runtime of an active snapshot by its ID, if there is one.
func (x *index) runtime(id string, idOf func(dataset string) (string, bool)) (string, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, r := range x.records {
		if r.Info.Kind != snapshots.KindActive {
			continue
		}
		if other, ok := idOf(r.Dataset); ok && other == id {
			return r.Dataset, true
		}
	}
	return "", false
}
