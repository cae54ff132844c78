package snapshotter

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/containerd/log"

	"github.com/zfstpl/zfstpl/snapshotter/internal/keylock"
)

// viewMounts keeps each template with views mounted. ZFS refuses a mount of a snapshot with
// EBUSY while the first mount of it is created or the last one is unmounted, because the
// superblock that is not complete owns the objset. Clients do not retry, so two views of one
// template could fail. While there is another mount, this does not happen. The mounts are in
// no mount namespace and end with the process.
type viewMounts struct {
	locks keylock.Locks // by dataset, held while it is mounted or unmounted; see held.go too

	mu   sync.Mutex
	open map[string]io.Closer // by dataset
}

// startViewMount mounts a template in a goroutine. done waits for it. The caller has pinned
// the template.
func (s *Snapshotter) startViewMount(ctx context.Context, t *template) (done func()) {
	mounted := make(chan struct{})
	go func() {
		defer close(mounted)
		s.mountView(context.WithoutCancel(ctx), t)
	}()
	return func() { <-mounted }
}

// mountView mounts a template if it is not mounted yet.
func (s *Snapshotter) mountView(ctx context.Context, t *template) {
	unlock, err := s.mounts.locks.Lock(ctx, t.Dataset())
	if err != nil {
		return
	}
	defer unlock()
	if s.mounts.has(t.Dataset()) {
		return
	}
	mount, err := s.pool.Attach(ctx, t.Snapshot())
	if err != nil {
		log.G(ctx).WithError(err).WithField("template", t.Dataset()).
			Warn("failed to mount template of view")
		return
	}
	s.mounts.mu.Lock()
	defer s.mounts.mu.Unlock()
	s.mounts.open[t.Dataset()] = mount
}

func (m *viewMounts) has(dataset string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.open[dataset] != nil
}

// hasViews reports whether a template has a view or a pin, which may be that of a new view.
func (x *index) hasViews(t *template) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return t.views > 0 || t.pins > 0
}

// releaseViewMounts unmounts the templates that have no views. It returns an error only if
// ctx ends.
func (s *Snapshotter) releaseViewMounts(ctx context.Context) error {
	s.mounts.mu.Lock()
	var datasets []string
	for dataset := range s.mounts.open {
		datasets = append(datasets, dataset)
	}
	s.mounts.mu.Unlock()
	for _, dataset := range datasets {
		if err := s.releaseViewMount(ctx, dataset); err != nil {
			return err
		}
	}
	return nil
}

// releaseViewMount unmounts a template if it has no views. It returns an error only if ctx
// ends. If the unmount fails, the destroy of the template reports it as busy.
func (s *Snapshotter) releaseViewMount(ctx context.Context, dataset string) error {
	unlock, err := s.mounts.locks.Lock(ctx, dataset)
	if err != nil {
		return err
	}
	defer unlock()
	if t := s.index.template(dataset); t != nil && s.index.hasViews(t) {
		return nil
	}
	if err := s.mounts.release(dataset); err != nil {
		log.G(ctx).WithError(err).WithField("template", dataset).Warn("failed to unmount template without views")
	}
	return nil
}

// template returns the template of a dataset, or nil.
func (x *index) template(dataset string) *template {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.templates[dataset]
}

func (m *viewMounts) release(dataset string) error {
	m.mu.Lock()
	mount := m.open[dataset]
	delete(m.open, dataset)
	m.mu.Unlock()
	if mount == nil {
		return nil
	}
	return mount.Close()
}

// releaseAll unmounts all templates.
func (m *viewMounts) releaseAll() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var errs []error
	for _, mount := range m.open {
		errs = append(errs, mount.Close())
	}
	clear(m.open)
	return errors.Join(errs...)
}

// mountViews mounts the templates of the views that recovery found.
func (s *Snapshotter) mountViews(ctx context.Context) {
	for _, t := range s.index.templates {
		if t.views > 0 {
			s.mountView(ctx, t)
		}
	}
}
