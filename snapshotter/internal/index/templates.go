package index

import (
	"errors"
	"fmt"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/opencontainers/go-digest"

	"github.com/zfstpl/zfstpl/snapshotter/internal/record"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// Unmeasured returns the cached templates that measureCached has not measured.
func (x *Index) Unmeasured() []*Template {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var list []*Template
	for _, t := range x.templates {
		if t.Cached() && !t.sizes.measured {
			list = append(list, t)
		}
	}
	return list
}

// Matches reports whether the chain ID of a template is that of the layer DiffID on the
// template's parent. It needs no lock: name and parent of a template do not change.
func (t *Template) Matches(diffID digest.Digest) bool {
	return t.Parent != nil && record.IsLayerOn(t.Template, t.Parent.Template, diffID)
}

// ProvenLayer returns the template of a layer if namespace may use it and its diff ID
// proves that it is that layer. Otherwise it returns the reason.
func (x *Index) ProvenLayer(layer layout.Template, namespace string) (t *Template, why string) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	t = x.templates[layer.Dataset()]
	switch {
	case t == nil || !t.visibleTo(namespace):
		return nil, fmt.Sprintf("template %s is not in the pool, or is not for this name", layer.Dataset())
	case !t.From.IsKnown() || !t.Matches(t.From.DiffID):
		return nil, fmt.Sprintf("template %s has no property %s that proves which layer it is", t.Dataset(), record.DiffIDProperty)
	}
	return t, ""
}

// visibleTo reports whether a template and all templates below it are layers that are
// shared or owned by namespace.
func (t *Template) visibleTo(namespace string) bool {
	for ; t != nil && !t.IsEmpty(); t = t.Parent {
		if t.IsOpaque() || t.IsOwned() && (namespace == "" || !t.OwnedBy(namespace)) {
			return false
		}
	}
	return t != nil
}

// Cached reports whether the template has no record and no user.
func (t *Template) Cached() bool {
	return t.Records == 0 && t.pins == 0 && t.standIns == 0 && !t.Held && !t.IsEmpty()
}

// Template returns the template of a dataset, or nil.
func (x *Index) Template(dataset string) *Template {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.templates[dataset]
}

// FindLayer returns the template of a layer if it is a clone of parent, otherwise nil. It
// reports whether containerd finds a record of it: a committed one with the label ref and
// the name of the parent. If not, it pins the template.
func (x *Index) FindLayer(layer layout.Template, parent *Template, parentName, ref string) (t *Template, found bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	t = x.templates[layer.Dataset()]
	if t == nil || t.Parent != parent {
		return nil, false
	}
	for _, r := range x.byDataset[t.Dataset()] {
		if r.Info.Kind == snapshots.KindCommitted && !x.hidden[r.Info.Name] && r.Info.Parent == parentName && r.Info.Labels[snapshots.LabelSnapshotRef] == ref {
			return t, true
		}
	}
	t.pins++
	return t, false
}

// DropLost reports whether err means that a cached template is missing in the pool, and
// then removes it from the index.
func (x *Index) DropLost(t *Template, err error) bool {
	var failed *zfs.Error
	if !errors.As(err, &failed) || !errors.Is(failed, zfs.ErrNotFound) || failed.Dataset != t.Dataset() {
		return false
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if t.Records > 0 || x.templates[t.Dataset()] != t {
		return false
	}
	delete(x.templates, t.Dataset())
	return true
}

// Pin prevents that a template is destroyed, until unpin.
func (x *Index) Pin(t *Template) {
	x.mu.Lock()
	defer x.mu.Unlock()
	t.pins++
}

// Unpin undoes Pin and the pins of other methods.
func (x *Index) Unpin(t *Template) {
	x.mu.Lock()
	defer x.mu.Unlock()
	t.pins--
}

// PinLayer pins and returns the template of a layer if it is a clone of parent and parent
// has a chain ID. Otherwise it returns nil.
func (x *Index) PinLayer(layer layout.Template, parent *Template) *Template {
	x.mu.Lock()
	defer x.mu.Unlock()
	t := x.templates[layer.Dataset()]
	if t == nil || t.Parent != parent {
		return nil
	}
	if _, ok := parent.ChainID(); !ok {
		return nil
	}
	t.pins++
	return t
}

// HasViews reports whether a template has a view or a pin, which may be that of a new view.
func (x *Index) HasViews(dataset string) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	t := x.templates[dataset]
	return t != nil && (t.views > 0 || t.pins > 0)
}

// Destination returns the template of a layer on parent, or nil if it does not exist, and
// whether a commit may use the dataset name of the layer. It may not if another dataset has
// the name, and then makes an opaque template. There are two such datasets:
//   - a template that an earlier cleanup could not destroy completely;
//   - a template of the same chain ID on another parent. One of the two chain IDs is wrong, and
//     which one is not known.
func (x *Index) Destination(layer layout.Template, parent *Template) (t *Template, free bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	t = x.templates[layer.Dataset()]
	if x.garbage[layer.Dataset()] != nil || x.reservedNames[layer.Dataset()] || t != nil && t.Parent != parent {
		return nil, false
	}
	return t, true
}

// Viewed returns the templates with views.
func (x *Index) Viewed() []*Template {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var list []*Template
	for _, t := range x.templates {
		if t.views > 0 {
			list = append(list, t)
		}
	}
	return list
}
