package snapshotter

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/filters"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"

	"github.com/zfstpl/zfstpl/snapshotter/internal/index"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
)

// Stat returns the Info of a snapshot, from memory. It restores the record of a lost
// layer, see heal.go.
func (s *Snapshotter) Stat(ctx context.Context, key string) (snapshots.Info, error) {
	r, err := s.find(ctx, key)
	if err != nil {
		return snapshots.Info{}, err
	}
	return r.PublicInfo(), nil
}

// lookup returns the record of a name or key.
func (s *Snapshotter) lookup(ctx context.Context, key string) (*index.Entry, error) {
	if err := s.gate.checkOpen(); err != nil {
		return nil, err
	}
	if err := s.resolveKey(ctx, key); err != nil {
		return nil, err
	}
	return s.index.Get(key)
}

// IsExtraction reports whether a runtime is that of an extraction.
func (s *Snapshotter) IsExtraction(runtime string) bool { return s.index.IsExtraction(runtime) }

// NamespaceOf returns the containerd namespace of the snapshots that mount source: a
// runtime, or the snapshot of a template with views. It returns "" if there is none or
// more than one.
func (s *Snapshotter) NamespaceOf(source string) string { return s.index.NamespaceOf(source) }

// Mounts returns the mounts of an active snapshot or a view. If they are bind mounts (see
// MountForm), the held mount exists when Mounts returns.
func (s *Snapshotter) Mounts(ctx context.Context, key string) ([]mount.Mount, error) {
	r, err := s.lookup(ctx, key)
	if err != nil {
		return nil, err
	}
	if r.Info.Kind == snapshots.KindCommitted {
		return nil, fmt.Errorf("snapshot %q is committed and has no mounts: %w", key, errdefs.ErrFailedPrecondition)
	}
	return s.mountsOf(ctx, r)
}

// Walk calls fn for each snapshot that existed when Walk began, sorted by name. If
// namespaces share no templates, the caller's namespace comes first (see skipLayer). fn may
// call any method.
func (s *Snapshotter) Walk(ctx context.Context, fn snapshots.WalkFunc, filter ...string) error {
	if err := s.gate.checkOpen(); err != nil {
		return err
	}
	match, err := filters.ParseAll(filter...)
	if err != nil {
		return err
	}
	records := s.index.Sorted()
	if ns, ok := namespaces.Namespace(ctx); ok && s.ownTemplates(ctx) {
		slices.SortStableFunc(records, func(a, b *index.Entry) int { return rank(b, ns) - rank(a, ns) })
	}
	for _, r := range records {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !match.Match(adapt(r.Info)) {
			continue
		}
		if err := fn(ctx, r.PublicInfo()); err != nil {
			return err
		}
	}
	return nil
}

// rank returns 1 for a record of the namespace and 0 for others.
func rank(r *index.Entry, namespace string) int {
	if layout.Namespace(r.Info.Name) == namespace {
		return 1
	}
	return 0
}

// adapt adapts an Info to containerd's filters: they match name, parent, kind and
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

// Update changes the labels of a snapshot. Nothing else can be changed.
func (s *Snapshotter) Update(ctx context.Context, info snapshots.Info, fields ...string) (snapshots.Info, error) {
	return detach(ctx, s.gate, func(ctx context.Context) (snapshots.Info, error) {
		return s.update(ctx, info, fields)
	})
}

func (s *Snapshotter) update(ctx context.Context, info snapshots.Info, fields []string) (snapshots.Info, error) {
	lost := s.restore(ctx, info.Name)
	unlock, err := s.locks.keys.Lock(ctx, info.Name)
	if err != nil {
		return snapshots.Info{}, err
	}
	defer unlock()
	old, err := s.index.Get(info.Name)
	if err != nil {
		return snapshots.Info{}, cmp.Or(lost, err)
	}
	if err := s.resolve(ctx, old); err != nil {
		return snapshots.Info{}, fmt.Errorf("snapshot %q: %w", info.Name, err)
	}
	labels, err := updatedLabels(old.Info, info.Labels, fields)
	if err != nil {
		return snapshots.Info{}, err
	}
	r := *old
	r.ID, r.Seq = layout.NewID(), s.index.Next()
	r.Info.Labels = labels
	r.Info.Updated = time.Now().UTC()
	if err := checkLabels(r.Info); err != nil {
		return snapshots.Info{}, err
	}
	if err := s.replaceRecord(ctx, fmt.Sprintf("update of %q", info.Name), old, &r); err != nil {
		return snapshots.Info{}, err
	}
	s.index.Replace(&r)
	return r.PublicInfo(), nil
}

func updatedLabels(old snapshots.Info, labels map[string]string, fields []string) (map[string]string, error) {
	if len(fields) == 0 {
		return maps.Clone(labels), nil
	}
	updated := make(map[string]string)
	maps.Copy(updated, old.Labels)
	for _, field := range fields {
		key, one := strings.CutPrefix(field, "labels.")
		switch {
		case one:
			// As in containerd's metadata store, an empty value removes the label.
			if v := labels[key]; v != "" {
				updated[key] = v
			} else {
				delete(updated, key)
			}
		case field == "labels":
			clear(updated)
			maps.Copy(updated, labels)
		default:
			return nil, fmt.Errorf("update of %q: field %q cannot be changed, only labels can: %w", old.Name, field, errdefs.ErrInvalidArgument)
		}
	}
	return updated, nil
}
