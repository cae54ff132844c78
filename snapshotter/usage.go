package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"github.com/zfstpl/zfstpl/snapshotter/errkind"
	"github.com/zfstpl/zfstpl/snapshotter/internal/index"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// usageMaxAge is how long Usage returns an active snapshot's usage from memory. ZFS updates
// its figures once in a transaction group, by default every five seconds.
const usageMaxAge = 5 * time.Second

// countMaxAge is how long Usage uses a count of objects while the bytes are unchanged. To
// count needs a mount. An empty file can be created without a change of the bytes.
const countMaxAge = time.Minute

// Usage returns what a snapshot adds to its parents. It does not walk the files. Size is
// as ZFS accounts it: compressed, and some seconds old. Inodes is the number of objects
// minus that of the parent, and zero if the snapshot deletes more than it adds. A committed
// snapshot is measured once, an active one at most every usageMaxAge. Its objects are
// counted if the bytes have changed, or after countMaxAge, but not if clients mount it as a
// dataset (see MountForm).
func (s *Snapshotter) Usage(ctx context.Context, key string) (snapshots.Usage, error) {
	r, err := s.find(ctx, key)
	if err != nil {
		return snapshots.Usage{}, err
	}
	if known, ok := s.index.Usage(r, usageMaxAge, time.Now()); ok {
		return known, nil
	}
	return detachIn(ctx, s.gate, s.gate.queries, func(ctx context.Context) (snapshots.Usage, error) { return s.usage(ctx, key, r) })
}

func (s *Snapshotter) usage(ctx context.Context, key string, r *index.Entry) (snapshots.Usage, error) {
	var err error
	var u snapshots.Usage
	if r.Info.Kind == snapshots.KindCommitted {
		u, err = s.measureTemplate(ctx, r.Template)
	} else {
		u, err = s.measureActive(ctx, r)
	}
	if errors.Is(err, zfs.ErrNotFound) {
		// The snapshot was committed or removed meanwhile, or another program destroyed
		// its dataset. Only the latter is an error of the pool.
		if now, getErr := s.index.Get(key); getErr != nil || now != r {
			return snapshots.Usage{}, fmt.Errorf("snapshot %q: %w", key, errdefs.ErrNotFound)
		}
	}
	return u, errkind.Wrap(fmt.Sprintf("usage of %q", key), err)
}

func (s *Snapshotter) measureTemplate(ctx context.Context, t *index.Template) (snapshots.Usage, error) {
	bytes, err := s.bytes(ctx, t.Dataset(), t.Parent)
	if err != nil {
		return snapshots.Usage{}, err
	}
	objects, err := s.objects(ctx, t)
	if err != nil {
		return snapshots.Usage{}, err
	}
	u, err := s.delta(ctx, bytes, objects, t.Parent)
	if err == nil {
		s.index.SetUsage(t, u)
	}
	return u, err
}

func (s *Snapshotter) measureActive(ctx context.Context, r *index.Entry) (snapshots.Usage, error) {
	bytes, err := s.bytes(ctx, r.Dataset, r.Template)
	if err != nil {
		return snapshots.Usage{}, err
	}
	now := time.Now()
	last, known := s.index.LastSample(r)
	sample := index.Sample{Usage: snapshots.Usage{Size: int64(bytes), Inodes: last.Inodes}, At: now, Counted: now}
	switch {
	case known && last.Size == int64(bytes) && now.Sub(last.Counted) < countMaxAge:
		sample.Counted = last.Counted
	case s.binds(ctx): // to count needs a mount, beside which ZFS can refuse that of a client
		objects, held := s.mounts.Objects(r.Dataset)
		if !held {
			if objects, err = s.pool.Objects(ctx, r.Dataset); err != nil {
				return snapshots.Usage{}, err
			}
		}
		if sample.Usage, err = s.delta(ctx, bytes, objects, r.Template); err != nil {
			return snapshots.Usage{}, err
		}
	}
	s.index.StoreSample(r, sample)
	return sample.Usage, nil
}

// bytes returns the bytes that a dataset adds to its parent. If it has no parent in the
// index, bytes returns the dataset's whole use.
func (s *Snapshotter) bytes(ctx context.Context, dataset string, parent *index.Template) (uint64, error) {
	if parent != nil {
		return s.pool.Written(ctx, dataset, parent.Snapshot())
	}
	space, err := s.pool.Space(ctx, dataset)
	return space.Used, err
}

// delta returns the usage of a dataset with bytes written and objects in total: it
// subtracts the objects of the parent.
func (s *Snapshotter) delta(ctx context.Context, bytes, objects uint64, parent *index.Template) (snapshots.Usage, error) {
	if parent != nil {
		below, err := s.objects(ctx, parent)
		if err != nil {
			return snapshots.Usage{}, err
		}
		objects -= min(objects, below)
	}
	return snapshots.Usage{Size: int64(bytes), Inodes: int64(objects)}, nil
}

// objects returns the number of objects of a template. It counts them once.
func (s *Snapshotter) objects(ctx context.Context, t *index.Template) (uint64, error) {
	if known := s.index.Sizes(t).Objects; known != 0 {
		return known, nil
	}
	n, err := s.pool.Objects(ctx, t.Snapshot())
	if err != nil {
		return 0, err
	}
	s.index.SetObjects(t, n)
	return n, nil
}
