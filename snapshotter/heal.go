package snapshotter

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"

	"github.com/zfstpl/zfstpl/snapshotter/errkind"
	"github.com/zfstpl/zfstpl/snapshotter/internal/index"
	"github.com/zfstpl/zfstpl/snapshotter/internal/record"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
)

// containerd trusts its own database. If the pool has lost the record of a layer that this
// database names (another containerd collected it, or the pool was rewound or restored),
// every Prepare on the layer fails. A pull does not help, because containerd reports that
// the layer exists. The record can be restored from its name, which has the chain ID. The
// restored record has no labels and no parent, because containerd's name of the parent is
// unknown. containerd has both in its database.

// pullAgain is the advice in the error for a record that cannot be restored. containerd
// unpacks a layer only if its database does not name it.
const pullAgain = `remove the containers and images that use this layer, and pull the images again ` +
	`("ctr images rm --sync IMAGE", "crictl rmi IMAGE" or "docker rmi IMAGE" before the pull)`

// find returns the record of a name, for a method that only reads. It restores the record
// of a lost layer.
func (s *Snapshotter) find(ctx context.Context, name string) (*index.Entry, error) {
	r, err := s.lookup(ctx, name)
	if !errdefs.IsNotFound(err) || !layout.IsLayerName(name) {
		return r, err
	}
	return detach(ctx, s.gate, func(ctx context.Context) (*index.Entry, error) {
		r, err := s.heal(ctx, name, s.healReadOnly)
		if err == nil || errdefs.IsNotFound(err) || ctx.Err() != nil {
			return r, err
		}
		// At any other error containerd would end a walk over all snapshots.
		log.G(ctx).WithError(err).WithField("snapshot", name).Debug("failed to restore record of lost layer")
		return nil, fmt.Errorf("snapshot %q: %w: %s", name, errdefs.ErrNotFound, err.Error())
	})
}

// restore restores the record of a name if it is that of a lost layer, for a method that
// writes to the pool anyway. The caller holds no lock. The error is the reason why there is
// no record.
func (s *Snapshotter) restore(ctx context.Context, name string) error {
	if _, err := s.index.Get(name); err == nil || !layout.IsLayerName(name) {
		return err
	}
	_, err := s.heal(ctx, name, func(ctx context.Context, r *index.Entry) error {
		return s.addRecord(ctx, r, s.apply)
	})
	return err
}

// healReadOnly writes a restored record for a method that only reads. It reclaims no space.
// It returns NotFound if the journal has a removal of a record on that template that is not durable, which may
// be the same record: containerd looks a name up in its database, can collect the
// snapshot, and then calls Stat.
func (s *Snapshotter) healReadOnly(ctx context.Context, r *index.Entry) error {
	if s.journal.HasRemoval(r.Dataset) {
		return fmt.Errorf("snapshot %q is being removed: %w", r.Info.Name, errdefs.ErrNotFound)
	}
	return s.addRecord(ctx, r, s.pool.Apply)
}

// heal returns the record of a layer's name. If it is lost, heal restores it with write.
// One of several concurrent callers writes it.
func (s *Snapshotter) heal(ctx context.Context, name string, write func(context.Context, *index.Entry) error) (*index.Entry, error) {
	namespace, chain, _ := layout.ParseLayerName(name)
	unlock, err := s.locks.keys.Lock(ctx, name)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if r, err := s.index.Get(name); err == nil || s.index.Taken(name) {
		return r, err // restored by another caller, or hidden
	}
	layer, unlockLayer, err := s.lockLayer(ctx, name, chain)
	if err != nil {
		return nil, err
	}
	defer unlockLayer()
	t, why := s.index.ProvenLayer(layer, healNamespace(ctx, namespace))
	if t == nil {
		return nil, lostLayer(name, why)
	}
	r := &index.Entry{Record: record.Record{ID: layout.NewID(), Seq: s.index.Next(), Healed: true, Dataset: t.Dataset()}, Template: t}
	now := time.Now().UTC()
	r.Info = snapshots.Info{Kind: snapshots.KindCommitted, Name: name, Created: now, Updated: now}
	if err := write(ctx, r); err != nil {
		if s.index.DropLost(t, err) {
			return nil, lostLayer(name, "template "+t.Dataset()+" is missing")
		}
		return nil, errkind.Wrap(fmt.Sprintf("restore of the record %q", name), err)
	}
	// The record becomes the parent again of the snapshots that lost it at the start. One that
	// another operation is changing gets its parent at the next start.
	children, unlockChildren := s.locks.keys.TryLockEach(s.index.OrphansOf(name)...)
	defer unlockChildren()
	s.index.InsertHealed(r, children)
	log.G(ctx).WithField("snapshot", name).WithField("template", t.Dataset()).
		Warn("restored record of lost layer")
	return r, nil
}

// lostLayer returns the error for a layer whose record cannot be restored.
func lostLayer(name, why string) error {
	return fmt.Errorf("snapshot %q: its record is lost, and %s; %s: %w", name, why, pullAgain, errdefs.ErrNotFound)
}

// healNamespace returns the namespace whose own layers may be restored: that of the name,
// or "" if the caller's is another.
func healNamespace(ctx context.Context, namespace string) string {
	if ns, ok := namespaces.Namespace(ctx); ok && ns != namespace {
		return ""
	}
	return namespace
}
