package snapshotter

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
)

// containerd believes its own database. When the pool has lost the record of a layer
// that this database names (another containerd collected it, or the pool was rewound
// or restored), every Prepare on the layer fails, and a pull does not help: containerd
// reports that the layer exists. The name is enough to restore the record: it has the
// chain ID. The restored record has no parent, because containerd's name of the parent
// is not known here, and no labels. containerd has both in its database.

// pullAgain is the way out when a record cannot be restored: containerd unpacks a layer
// only when its database does not name it.
const pullAgain = `remove the containers and images that use this layer, and pull the images again ` +
	`("ctr images rm --sync IMAGE", "crictl rmi IMAGE" or "docker rmi IMAGE" before the pull)`

// find returns the record of a name for a method that only reads. It restores the
// record of a lost layer.
func (s *Snapshotter) find(ctx context.Context, name string) (*record, error) {
	r, err := s.lookup(name)
	if !errdefs.IsNotFound(err) || !isLayerName(name) {
		return r, err
	}
	return detach(ctx, s, func(ctx context.Context) (*record, error) {
		r, err := s.heal(ctx, name, s.healUnlogged)
		if err == nil || errdefs.IsNotFound(err) || ctx.Err() != nil {
			return r, err
		}
		// containerd ends a walk over all snapshots at any other error: a layer that is
		// lost must not hide the others.
		log.G(ctx).WithError(err).WithField("snapshot", name).Debug("the record of a lost layer could not be restored")
		return nil, fmt.Errorf("snapshot %q: %w: %s", name, errdefs.ErrNotFound, err.Error())
	})
}

func isLayerName(name string) bool {
	_, _, ok := layout.ParseLayerName(name)
	return ok
}

// restore restores the record of a name, if it is a lost layer, for a method that writes
// to the pool anyway. The caller holds no lock. The error says why there is no record.
func (s *Snapshotter) restore(ctx context.Context, name string) error {
	if _, err := s.index.get(name); err == nil || !isLayerName(name) {
		return err
	}
	_, err := s.heal(ctx, name, func(ctx context.Context, r *record) error {
		return s.writeRecord(ctx, r, nil, s.apply)
	})
	return err
}

// healUnlogged writes the record for a method that only reads. It evicts nothing. A
// removal that is not yet in the pool may be of this very record: containerd looked the
// name up, then collected the snapshot, and asks for it now.
func (s *Snapshotter) healUnlogged(ctx context.Context, r *record) error {
	if s.journal.hasPending(func(dataset string) bool { return dataset == r.dataset }) {
		return fmt.Errorf("snapshot %q is being removed: %w", r.info.Name, errdefs.ErrNotFound)
	}
	return s.writeRecord(ctx, r, nil, s.pool.Apply)
}

// heal returns the record of a layer's name. If it is lost, heal restores it with
// write. Of several callers one does so.
func (s *Snapshotter) heal(ctx context.Context, name string, write func(context.Context, *record) error) (*record, error) {
	namespace, chain, _ := layout.ParseLayerName(name)
	layer, err := s.layer(ctx, name, chain)
	if err != nil {
		return nil, err
	}
	unlock, err := s.keys.lock(ctx, name)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if r, err := s.index.get(name); err == nil || s.index.taken(name) {
		return r, err // restored by another caller, or being removed
	}
	unlockLayer, err := s.data.lock(ctx, layer.Dataset()) // no cleanup destroys it meanwhile
	if err != nil {
		return nil, err
	}
	defer unlockLayer()
	t, why := s.index.provenLayer(layer, healNamespace(ctx, namespace))
	if t == nil {
		return nil, lostLayer(name, why)
	}
	r := &record{id: layout.NewID(), seq: s.index.next(), healed: true, dataset: t.Dataset(), template: t}
	now := time.Now().UTC()
	r.info = snapshots.Info{Kind: snapshots.KindCommitted, Name: name, Created: now, Updated: now}
	if err := write(ctx, r); err != nil {
		if s.index.dropLost(t, err) {
			return nil, lostLayer(name, "template "+t.Dataset()+" was destroyed")
		}
		return nil, poolError(fmt.Sprintf("restore of the record %q", name), err)
	}
	s.insertHealed(r)
	log.G(ctx).WithField("snapshot", name).WithField("template", t.Dataset()).
		Warn("the record of a layer that containerd knows was lost; it is restored from the template")
	return r, nil
}

// lostLayer is the error for a layer whose record cannot be restored.
func lostLayer(name, why string) error {
	return fmt.Errorf("snapshot %q: its record is lost, and %s; %s: %w", name, why, pullAgain, errdefs.ErrNotFound)
}

// asker returns the namespace whose own layers a name may stand for: the name's, unless
// the caller says that it is another's.
func healNamespace(ctx context.Context, namespace string) string {
	if ns, ok := namespaces.Namespace(ctx); ok && ns != namespace {
		return ""
	}
	return namespace
}

// provenLayer returns the template of a layer if it certainly is the layer of its name
// and namespace may see it. If not, it says why.
func (x *index) provenLayer(layer layout.Template, namespace string) (t *template, why string) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	t = x.templates[layer.Dataset()]
	switch {
	case t == nil || !t.visibleTo(namespace):
		return nil, fmt.Sprintf("template %s is not in the pool, or is not for this name", layer.Dataset())
	case !t.from.isKnown() || !t.matches(t.from.diffID):
		return nil, fmt.Sprintf("template %s has no property %s that proves which layer it is", t.Dataset(), propDiffID)
	}
	return t, ""
}

// visibleTo reports whether a template and all that it stands on are layers that are
// shared, or that belong to namespace alone.
func (t *template) visibleTo(namespace string) bool {
	for ; t != nil && !t.IsEmpty(); t = t.parent {
		if t.IsOpaque() || t.IsOwned() && (namespace == "" || !t.OwnedBy(namespace)) {
			return false
		}
	}
	return t != nil
}

// restored makes a healed record visible. What stands on it and was shown without a
// parent since the start gets its parent again; what is being changed at this moment
// gets it at the next start.
func (s *Snapshotter) insertHealed(r *record) {
	children, unlock := s.keys.tryLockEach(s.index.orphansOf(r.info.Name)...)
	defer unlock()
	x := s.index
	x.mu.Lock()
	defer x.mu.Unlock()
	x.insert(r)
	for _, key := range children {
		x.linkChild(key, r.info.Name)
	}
}

// orphansOf returns the keys of the snapshots that lost this parent.
func (x *index) orphansOf(parent string) []string {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var keys []string
	for key, r := range x.records {
		if r.lost == parent {
			keys = append(keys, key)
		}
	}
	return keys
}

// tie gives a snapshot the parent that it lost. It wants the mutex held.
func (x *index) linkChild(key, parent string) {
	old := x.records[key]
	if old == nil || old.lost != parent {
		return
	}
	tied := *old
	tied.info.Parent, tied.lost = parent, ""
	x.linkRecord(&tied)
	x.addChild(parent)
}
