package snapshotter

import (
	"errors"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/opencontainers/go-digest"

	"github.com/zfstpl/zfstpl/snapshotter/internal/record"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/space"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// expired reports whether a cached template is kept no longer. An opaque template
// expires at once, because no pull can reuse it.
func (t *template) expired(keep time.Duration, now time.Time) bool {
	if !t.cached() {
		return false
	}
	return t.IsOpaque() || space.Policy{Keep: keep}.Expired(t.idle, now)
}

// unmeasured returns the cached templates that measureCached has not measured.
func (x *index) unmeasured() []*template {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var list []*template
	for _, t := range x.templates {
		if t.cached() && !t.measured {
			list = append(list, t)
		}
	}
	return list
}

// matches reports whether the chain ID of a template is that of the layer DiffID on the
// template's parent. It needs no lock: name and parent of a template do not change.
func (t *template) matches(diffID digest.Digest) bool {
	return t.parent != nil && record.IsLayerOn(t.Template, t.parent.Template, diffID)
}

// provenLayer returns the template of a layer if namespace may use it and its diff ID
// proves that it is that layer. Otherwise it returns the reason.
func (x *index) provenLayer(layer layout.Template, namespace string) (t *template, why string) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	t = x.templates[layer.Dataset()]
	switch {
	case t == nil || !t.visibleTo(namespace):
		return nil, fmt.Sprintf("template %s is not in the pool, or is not for this name", layer.Dataset())
	case !t.from.IsKnown() || !t.matches(t.from.DiffID):
		return nil, fmt.Sprintf("template %s has no property %s that proves which layer it is", t.Dataset(), record.DiffIDProperty)
	}
	return t, ""
}

// visibleTo reports whether a template and all templates below it are layers that are
// shared or owned by namespace.
func (t *template) visibleTo(namespace string) bool {
	for ; t != nil && !t.IsEmpty(); t = t.parent {
		if t.IsOpaque() || t.IsOwned() && (namespace == "" || !t.OwnedBy(namespace)) {
			return false
		}
	}
	return t != nil
}

// cached reports whether the template has no record and no user.
func (t *template) cached() bool {
	return t.records == 0 && t.pins == 0 && t.standIns == 0 && !t.held && !t.IsEmpty()
}

// template returns the template of a dataset, or nil.
func (x *index) template(dataset string) *template {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.templates[dataset]
}

// findLayer returns the template of a layer if it is a clone of parent, otherwise nil. It
// reports whether containerd finds a record of it: a committed one with the label ref and
// the name of the parent. If not, it pins the template.
func (x *index) findLayer(layer layout.Template, parent *template, parentName, ref string) (t *template, found bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	t = x.templates[layer.Dataset()]
	if t == nil || t.parent != parent {
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

// dropLost reports whether err means that a cached template is missing in the pool, and
// then removes it from the index.
func (x *index) dropLost(t *template, err error) bool {
	var failed *zfs.Error
	if !errors.As(err, &failed) || !errors.Is(failed, zfs.ErrNotFound) || failed.Dataset != t.Dataset() {
		return false
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if t.records > 0 || x.templates[t.Dataset()] != t {
		return false
	}
	delete(x.templates, t.Dataset())
	return true
}

// pin prevents that a template is destroyed, until unpin.
func (x *index) pin(t *template) {
	x.mu.Lock()
	defer x.mu.Unlock()
	t.pins++
}

func (x *index) unpin(t *template) {
	x.mu.Lock()
	defer x.mu.Unlock()
	t.pins--
}

// pinLayer pins and returns the template of a layer if it is a clone of parent and parent
// has a chain ID. Otherwise it returns nil.
func (x *index) pinLayer(layer layout.Template, parent *template) *template {
	x.mu.Lock()
	defer x.mu.Unlock()
	t := x.templates[layer.Dataset()]
	if t == nil || t.parent != parent {
		return nil
	}
	if _, ok := parent.ChainID(); !ok {
		return nil
	}
	t.pins++
	return t
}

// hasViews reports whether a template has a view or a pin, which may be that of a new view.
func (x *index) hasViews(dataset string) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	t := x.templates[dataset]
	return t != nil && (t.views > 0 || t.pins > 0)
}

// destination returns the template of a layer on parent if it exists, otherwise nil, and
// whether the layer's name can be used. It cannot if another dataset has the name: a
// template that could not be destroyed, or one of the same chain ID on another parent. One of
// these two has a wrong chain ID, so neither may be used as the other.
func (x *index) destination(layer layout.Template, parent *template) (t *template, free bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	t = x.templates[layer.Dataset()]
	if x.garbage[layer.Dataset()] != nil || x.reservedNames[layer.Dataset()] || t != nil && t.parent != parent {
		return nil, false
	}
	return t, true
}

// viewed returns the templates with views.
func (x *index) viewed() []*template {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var list []*template
	for _, t := range x.templates {
		if t.views > 0 {
			list = append(list, t)
		}
	}
	return list
}
