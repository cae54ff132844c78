package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/filters"
	"github.com/containerd/errdefs"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// Stat answers from memory.
func (s *Snapshotter) Stat(_ context.Context, key string) (snapshots.Info, error) {
	r, err := s.lookup(key)
	if err != nil {
		return snapshots.Info{}, err
	}
	return r.publicInfo(), nil
}

// lookup answers the record of that name or key.
func (s *Snapshotter) lookup(key string) (*record, error) {
	if err := s.usable(); err != nil {
		return nil, err
	}
	return s.index.get(key)
}

// Mounts answers from memory.
func (s *Snapshotter) Mounts(_ context.Context, key string) ([]mount.Mount, error) {
	r, err := s.lookup(key)
	if err != nil {
		return nil, err
	}
	if r.info.Kind == snapshots.KindCommitted {
		return nil, fmt.Errorf("snapshot %q is committed and has no mounts: %w", key, errdefs.ErrFailedPrecondition)
	}
	return r.mounts(), nil
}

// Walk calls fn for each snapshot as it was when Walk began, sorted by name.
// fn may call any method.
func (s *Snapshotter) Walk(ctx context.Context, fn snapshots.WalkFunc, filter ...string) error {
	if err := s.usable(); err != nil {
		return err
	}
	match, err := filters.ParseAll(filter...)
	if err != nil {
		return err
	}
	for _, r := range s.index.sorted() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !match.Match(adapt(r.info)) {
			continue
		}
		if err := fn(ctx, r.publicInfo()); err != nil {
			return err
		}
	}
	return nil
}

func (x *index) sorted() []*record {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return slices.SortedFunc(maps.Values(x.records), func(a, b *record) int {
		return strings.Compare(a.info.Name, b.info.Name)
	})
}

// adapt shows an info to containerd's filters: name, parent, kind and
// labels.<key>.
func adapt(info snapshots.Info) filters.Adaptor {
	return filters.AdapterFunc(func(path []string) (string, bool) {
		if len(path) == 0 {
			return "", false
		}
		switch path[0] {
		case "name":
			return info.Name, true
		case "parent":
			return info.Parent, true
		case "kind":
			return strings.ToLower(info.Kind.String()), true
		case "labels":
			v, ok := info.Labels[strings.Join(path[1:], ".")]
			return v, ok
		}
		return "", false
	})
}

// Update changes labels, the one thing about a snapshot that can change.
func (s *Snapshotter) Update(ctx context.Context, info snapshots.Info, fields ...string) (snapshots.Info, error) {
	return settle(ctx, s, func(ctx context.Context) (snapshots.Info, error) {
		return s.update(ctx, info, fields)
	})
}

func (s *Snapshotter) update(ctx context.Context, info snapshots.Info, fields []string) (snapshots.Info, error) {
	unlock, err := s.keys.lock(ctx, info.Name)
	if err != nil {
		return snapshots.Info{}, err
	}
	defer unlock()
	old, err := s.index.get(info.Name)
	if err != nil {
		return snapshots.Info{}, err
	}
	labels, err := updatedLabels(old.info, info.Labels, fields)
	if err != nil {
		return snapshots.Info{}, err
	}
	// A record of its own, then the old one goes: whatever stops the pool in
	// between, one of them is whole, and the newer counts.
	r := *old
	r.id, r.seq = layout.NewID(), s.index.next()
	r.info.Labels = labels
	r.info.Updated = time.Now().UTC()
	ops, err := r.set()
	if err != nil {
		return snapshots.Info{}, err
	}
	ops = append(ops, old.clear()...)
	if err := ctx.Err(); err != nil {
		return snapshots.Info{}, err
	}
	if err := s.pool.Apply(ctx, ops...); err != nil {
		return snapshots.Info{}, poolError(fmt.Sprintf("update of %q", info.Name), err)
	}
	s.index.mu.Lock()
	defer s.index.mu.Unlock()
	s.index.records[info.Name] = &r
	return r.publicInfo(), nil
}

func updatedLabels(old snapshots.Info, labels map[string]string, fields []string) (map[string]string, error) {
	if len(fields) == 0 {
		return maps.Clone(labels), nil
	}
	updated := maps.Clone(old.Labels)
	if updated == nil {
		updated = make(map[string]string)
	}
	for _, field := range fields {
		key, one := strings.CutPrefix(field, "labels.")
		switch {
		case one:
			// As containerd's own store does: a field without a value goes.
			if v := labels[key]; v != "" {
				updated[key] = v
			} else {
				delete(updated, key)
			}
		case field == "labels":
			updated = make(map[string]string)
			maps.Copy(updated, labels)
		default:
			return nil, fmt.Errorf("update of %q: field %q cannot be changed, only labels can: %w", old.Name, field, errdefs.ErrInvalidArgument)
		}
	}
	return updated, nil
}

// Usage answers what a snapshot holds beyond its parents, without walking it.
// Bytes are as ZFS accounts them: compressed, and some seconds behind a writer.
// Inodes are objects beyond those of the parent; a snapshot that deletes more
// than it adds has none. A committed snapshot is measured once.
func (s *Snapshotter) Usage(ctx context.Context, key string) (snapshots.Usage, error) {
	return settle(ctx, s, func(ctx context.Context) (snapshots.Usage, error) {
		r, err := s.index.get(key)
		if err != nil {
			return snapshots.Usage{}, err
		}
		var u snapshots.Usage
		switch r.info.Kind {
		case snapshots.KindView:
			return snapshots.Usage{}, nil // shows its parent and adds nothing
		case snapshots.KindActive:
			u, err = s.measure(ctx, r.dataset, r.dataset, r.template)
		default:
			u, err = s.templateUsage(ctx, r.template)
		}
		if errors.Is(err, zfs.ErrNotFound) {
			// It was committed or removed while it was measured, or a stranger
			// destroyed it. The first is not worth an error of its own.
			if now, getErr := s.index.get(key); getErr != nil || now != r {
				return snapshots.Usage{}, fmt.Errorf("snapshot %q: %w", key, errdefs.ErrNotFound)
			}
		}
		return u, poolError(fmt.Sprintf("usage of %q", key), err)
	})
}

func (s *Snapshotter) templateUsage(ctx context.Context, t *template) (snapshots.Usage, error) {
	s.index.mu.RLock()
	known := t.usage
	s.index.mu.RUnlock()
	if known != nil {
		return *known, nil
	}
	u, err := s.measure(ctx, t.Dataset(), t.Snapshot(), t.parent)
	if err != nil {
		return snapshots.Usage{}, err
	}
	s.index.mu.Lock()
	defer s.index.mu.Unlock()
	t.usage = &u
	return u, nil
}

// measure answers the bytes of dataset and how many more objects content has
// than parent.
func (s *Snapshotter) measure(ctx context.Context, dataset, content string, parent *template) (snapshots.Usage, error) {
	bytes, err := s.pool.Used(ctx, dataset)
	if err != nil {
		return snapshots.Usage{}, err
	}
	objects, err := s.pool.Objects(ctx, content)
	if err != nil {
		return snapshots.Usage{}, err
	}
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
