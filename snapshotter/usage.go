package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// usageFresh is how long an active snapshot's usage is answered from memory.
// ZFS brings its own figures up to date once in a transaction group, every five
// seconds unless something waits for one: to ask more often tells little.
const usageMaxAge = 5 * time.Second

// countFresh is how long a count of objects stands while the bytes are the same:
// to count them takes a mount, and a file without content may need no block.
const countMaxAge = time.Minute

// sample is an active snapshot's usage as it was measured.
type sample struct {
	snapshots.Usage
	at      time.Time
	counted time.Time // when the objects were
}

// Usage answers what a snapshot holds beyond its parents, without walking it.
// Bytes are as ZFS accounts them: compressed, and some seconds behind a writer.
// Inodes are objects beyond those of the parent; a snapshot that deletes more
// than it adds has none, and neither has an active one that clients mount as a
// dataset (see MountForm). A committed snapshot is measured once, an active one
// at most every five seconds; its inodes when the bytes have changed, or after a
// minute.
func (s *Snapshotter) Usage(ctx context.Context, key string) (snapshots.Usage, error) {
	r, err := s.find(ctx, key)
	if err != nil {
		return snapshots.Usage{}, err
	}
	if known, ok := s.index.usage(r); ok {
		return known, nil
	}
	return detachIn(ctx, s, s.queries, func(ctx context.Context) (snapshots.Usage, error) { return s.usage(ctx, key, r) })
}

// usage answers what is known of a record's usage without asking the pool.
func (x *index) usage(r *record) (snapshots.Usage, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	switch {
	case r.info.Kind == snapshots.KindView:
		return snapshots.Usage{}, true // shows its parent and adds nothing
	case r.info.Kind == snapshots.KindCommitted && r.template.usage != nil:
		return *r.template.usage, true
	case r.info.Kind == snapshots.KindActive:
		known, ok := x.samples[r.dataset]
		return known.Usage, ok && time.Since(known.at) < usageMaxAge
	}
	return snapshots.Usage{}, false
}

func (s *Snapshotter) usage(ctx context.Context, key string, r *record) (snapshots.Usage, error) {
	var err error
	var u snapshots.Usage
	if r.info.Kind == snapshots.KindCommitted {
		u, err = s.measureTemplate(ctx, r.template)
	} else {
		u, err = s.measureActive(ctx, r)
	}
	if errors.Is(err, zfs.ErrNotFound) {
		// It was committed or removed while it was measured, or a stranger
		// destroyed it. The first is not worth an error of its own.
		if now, getErr := s.index.get(key); getErr != nil || now != r {
			return snapshots.Usage{}, fmt.Errorf("snapshot %q: %w", key, errdefs.ErrNotFound)
		}
	}
	return u, poolError(fmt.Sprintf("usage of %q", key), err)
}

func (s *Snapshotter) measureTemplate(ctx context.Context, t *template) (snapshots.Usage, error) {
	bytes, err := s.bytes(ctx, t.Dataset(), t.parent)
	if err != nil {
		return snapshots.Usage{}, err
	}
	objects, err := s.objects(ctx, t)
	if err != nil {
		return snapshots.Usage{}, err
	}
	u, err := s.delta(ctx, bytes, objects, t.parent)
	if err == nil {
		s.index.mu.Lock()
		defer s.index.mu.Unlock()
		t.usage = &u
	}
	return u, err
}

func (s *Snapshotter) measureActive(ctx context.Context, r *record) (snapshots.Usage, error) {
	bytes, err := s.bytes(ctx, r.dataset, r.template)
	if err != nil {
		return snapshots.Usage{}, err
	}
	now := time.Now()
	last, known := s.index.lastSample(r)
	if known && last.Size == int64(bytes) && now.Sub(last.counted) < countMaxAge {
		s.index.storeSample(r, sample{last.Usage, now, last.counted})
		return last.Usage, nil
	}
	if !s.binds(ctx) {
		// To count is to mount, and ZFS can refuse a client's own mount for that.
		u := snapshots.Usage{Size: int64(bytes), Inodes: last.Inodes}
		s.index.storeSample(r, sample{u, now, now})
		return u, nil
	}
	objects, err := s.pool.Objects(ctx, r.dataset)
	if err != nil {
		return snapshots.Usage{}, err
	}
	u, err := s.delta(ctx, bytes, objects, r.template)
	if err == nil {
		s.index.storeSample(r, sample{u, now, now})
	}
	return u, err
}

func (x *index) lastSample(r *record) (sample, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	known, ok := x.samples[r.dataset]
	return known, ok
}

func (x *index) storeSample(r *record, u sample) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if now := x.records[r.info.Name]; now != nil && now.dataset == r.dataset {
		x.samples[r.dataset] = u
	}
}

// bytes answers what a dataset holds beyond its parent. One on a stranger's
// origin has no parent that can be asked about.
func (s *Snapshotter) bytes(ctx context.Context, dataset string, parent *template) (uint64, error) {
	if parent != nil {
		return s.pool.Written(ctx, dataset, parent.Snapshot())
	}
	space, err := s.pool.Space(ctx, dataset)
	return space.Used, err
}

// beyond is the usage of so many bytes, and of those objects that the parent
// does not have.
func (s *Snapshotter) delta(ctx context.Context, bytes, objects uint64, parent *template) (snapshots.Usage, error) {
	if parent != nil {
		below, err := s.objects(ctx, parent)
		if err != nil {
			return snapshots.Usage{}, err
		}
		objects -= min(objects, below)
	}
	return snapshots.Usage{Size: int64(bytes), Inodes: int64(objects)}, nil
}

// objects counts a template's objects, once.
func (s *Snapshotter) objects(ctx context.Context, t *template) (uint64, error) {
	s.index.mu.RLock()
	known := t.objects
	s.index.mu.RUnlock()
	if known != 0 {
		return known, nil
	}
	n, err := s.pool.Objects(ctx, t.Snapshot())
	if err != nil {
		return 0, err
	}
	s.index.mu.Lock()
	defer s.index.mu.Unlock()
	t.objects = n
	return n, nil
}
