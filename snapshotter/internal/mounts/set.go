package mounts

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"

	"github.com/zfstpl/zfstpl/snapshotter/errkind"
	"github.com/zfstpl/zfstpl/snapshotter/internal/keylock"
)

// Holder keeps file systems mounted in a directory, where clients can bind them. *Dir
// implements it and documents the methods.
type Holder interface {
	Hold(ctx context.Context, filesystem, id string) (path string, err error)
	Release(filesystem string) error
	Held() []string
	Path() string
	Visible(root, path string) (bool, error)
	Objects(filesystem string) (n uint64, ok bool)
}

// Attach mounts a snapshot in no mount namespace, until the result is closed.
type Attach func(ctx context.Context, snapshot string) (io.Closer, error)

// Set has the mounts that a snapshotter makes for its clients, of two kinds.
//
// A held mount is that of a runtime. It is in the directory of a Holder, and clients bind it.
// It outlives the process.
//
// A view mount is that of a template's @extracted. Set keeps it while the template has views,
// so that clients can mount @extracted concurrently: ZFS refuses a mount with EBUSY while the
// first mount is created or the last one is unmounted, because an incomplete superblock owns
// the objset then, and clients do not retry. A view mount is in no mount namespace and ends
// with the process.
type Set struct {
	holder Holder // nil if no runtime is held mounted
	attach Attach
	locks  keylock.Locks // by dataset, held while it is mounted or unmounted
	views  sync.Map      // the mounts of views, each an io.Closer, by dataset
}

// NewSet returns a set without view mounts. holder may be nil.
func NewSet(holder Holder, attach Attach) *Set {
	return &Set{holder: holder, attach: attach}
}

// AttachView mounts the snapshot of a template if it is not mounted yet. It logs a failure.
func (m *Set) AttachView(ctx context.Context, dataset, snapshot string) {
	unlock, err := m.locks.Lock(ctx, dataset)
	if err != nil {
		return
	}
	defer unlock()
	if _, mounted := m.views.Load(dataset); mounted {
		return
	}
	mount, err := m.attach(ctx, snapshot)
	if err != nil {
		log.G(ctx).WithError(err).WithField("template", dataset).
			Warn("failed to mount template of view")
		return
	}
	m.views.Store(dataset, mount)
}

// ReleaseViews unmounts the templates for which inUse reports false. It returns an error
// only if ctx ends.
func (m *Set) ReleaseViews(ctx context.Context, inUse func(dataset string) bool) error {
	for dataset := range m.views.Range {
		if err := m.ReleaseView(ctx, dataset.(string), inUse); err != nil {
			return err
		}
	}
	return nil
}

// ReleaseView unmounts a template unless inUse reports true. It returns an error only if ctx
// ends. If the unmount fails, the destroy of the template reports it as busy.
func (m *Set) ReleaseView(ctx context.Context, dataset string, inUse func(dataset string) bool) error {
	unlock, err := m.locks.Lock(ctx, dataset)
	if err != nil {
		return err
	}
	defer unlock()
	if inUse(dataset) {
		return nil
	}
	mount, mounted := m.views.LoadAndDelete(dataset)
	if !mounted {
		return nil
	}
	if err := mount.(io.Closer).Close(); err != nil {
		log.G(ctx).WithError(err).WithField("template", dataset).Warn("failed to unmount template without views")
	}
	return nil
}

// Close unmounts all templates. Held mounts stay. No other method may run.
func (m *Set) Close() error {
	var errs []error
	for _, mount := range m.views.Range {
		errs = append(errs, mount.(io.Closer).Close())
	}
	m.views.Clear()
	return errors.Join(errs...)
}

// Holds reports whether runtimes can be held mounted.
func (m *Set) Holds() bool { return m.holder != nil }

// Path returns the directory of the held mounts. Holds must report true.
func (m *Set) Path() string { return m.holder.Path() }

// Hold creates the held mount of a runtime, if there is none, and returns its path.
func (m *Set) Hold(ctx context.Context, dataset, id string) (string, error) {
	unlock, err := m.locks.Lock(ctx, dataset)
	if err != nil {
		return "", err
	}
	defer unlock()
	path, err := m.holder.Hold(ctx, dataset, id)
	return path, heldError(dataset, err)
}

// Objects returns how many objects a runtime has, if it is held mounted.
func (m *Set) Objects(dataset string) (n uint64, ok bool) {
	if m.holder == nil {
		return 0, false
	}
	return m.holder.Objects(dataset)
}

// Release unmounts the held mount of a runtime. It returns nil if there is none.
func (m *Set) Release(ctx context.Context, dataset string) error {
	if m.holder == nil {
		return nil
	}
	unlock, err := m.locks.Lock(ctx, dataset)
	if err != nil {
		return err
	}
	defer unlock()
	return heldError(dataset, m.holder.Release(dataset))
}

// ReleaseAll unmounts the held mounts for which unused reports true. It logs failures.
func (m *Set) ReleaseAll(ctx context.Context, unused func(dataset string) bool) {
	if m.holder == nil {
		return
	}
	for _, dataset := range slices.DeleteFunc(m.holder.Held(), func(dataset string) bool { return !unused(dataset) }) {
		if err := m.Release(ctx, dataset); err != nil {
			log.G(ctx).WithError(err).WithField("dataset", dataset).Warn("failed to unmount held mount of removed snapshot")
		}
	}
}

// CheckVisible fails with ErrFailedPrecondition if a process with another root directory does
// not see the held mount at path: in another mount namespace an empty directory may be there.
func (m *Set) CheckVisible(root, dataset, path string) error {
	visible, err := m.holder.Visible(root, path)
	if err != nil {
		return fmt.Errorf("dataset %s: look for the held mount in the caller's mount namespace: %w", dataset, err)
	}
	if !visible {
		return fmt.Errorf("dataset %s: the held mount %s is not visible in the caller's mount namespace: set mounts = \"auto\", or propagate the mounts in %s to that namespace: %w",
			dataset, path, m.holder.Path(), errdefs.ErrFailedPrecondition)
	}
	return nil
}

// heldError adds the dataset and an errdefs kind to an error of a held mount.
func heldError(dataset string, err error) error {
	if errors.Is(err, ErrForeign) {
		return fmt.Errorf("dataset %s: %w: %w", dataset, err, errdefs.ErrFailedPrecondition)
	}
	return errkind.Wrap("dataset "+dataset, err)
}
