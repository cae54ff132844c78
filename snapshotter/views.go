package snapshotter

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/containerd/log"
)

// ZFS answers a mount with EBUSY while another mount of the same snapshot is being
// made, or, being the last one, taken away: a superblock that is not yet or no
// longer complete owns the objset. Two Views of one template meet in such a
// moment, and whoever mounts them does not try again. While some mount stays,
// neither happens. So each template that has a View is kept mounted, without a
// place in any namespace and for no longer than this process lives.
type viewMounts struct {
	locks keyLocks // by dataset, while a mount is made or taken away

	mu   sync.Mutex
	open map[string]io.Closer // by dataset
}

// keepMounted begins to mount a template; done answers when it is. The caller
// has pinned the template.
func (s *Snapshotter) startViewMount(ctx context.Context, t *template) (done func()) {
	mounted := make(chan struct{})
	go func() {
		defer close(mounted)
		s.mountView(context.WithoutCancel(ctx), t)
	}()
	return func() { <-mounted }
}

func (s *Snapshotter) mountView(ctx context.Context, t *template) {
	unlock, err := s.mounts.locks.lock(ctx, t.Dataset())
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
			Warn("the template of a view could not be kept mounted: while another view of it is mounted or unmounted, mounting this one can fail")
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

// viewed tells whether there is a View of a template, or one is being made.
func (x *index) hasViews(t *template) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return t.views > 0 || t.pins > 0
}

// releaseMounts takes away the mounts of templates that have no View any more. It
// fails where ctx ends.
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

// releaseMount fails where ctx ends. A mount that cannot be taken away is no error: its
// template is busy then, which destroying it finds out and says.
func (s *Snapshotter) releaseViewMount(ctx context.Context, dataset string) error {
	unlock, err := s.mounts.locks.lock(ctx, dataset)
	if err != nil {
		return err
	}
	defer unlock()
	if t := s.index.template(dataset); t != nil && s.index.hasViews(t) {
		return nil
	}
	if err := s.mounts.release(dataset); err != nil {
		log.G(ctx).WithError(err).WithField("template", dataset).Warn("the mount of a template that has no view could not be taken away")
	}
	return nil
}

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

// releaseAll is for the end.
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

// keepViewsMounted is keepMounted for the Views that a start found.
func (s *Snapshotter) mountViews(ctx context.Context) {
	for _, t := range s.index.templates {
		if t.views > 0 {
			s.mountView(ctx, t)
		}
	}
}
