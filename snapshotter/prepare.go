package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// Prepare makes a runtime: a clone of the parent's template that carries its
// record.
//
// With the label containerd.io/snapshot.ref it asks for a layer too. Where the layer
// of that chain ID is in the pool on this very parent, cached or in use, the mode
// decides (see Config.ReuseLayers). ReuseSkip makes a record for the layer and returns
// AlreadyExists, upon which containerd neither fetches nor unpacks it. ReuseFetch makes
// a clone of the layer's own template: containerd fetches the blob, the differ finds
// the layer unpacked, and Commit adds a record to the template.
func (s *Snapshotter) Prepare(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	return detach(ctx, s, func(ctx context.Context) ([]mount.Mount, error) {
		defer s.activity.begin()()
		return s.create(ctx, snapshots.KindActive, key, parent, opts)
	})
}

// View makes a record on the parent's template and nothing else: what is
// mounted is the template's snapshot.
func (s *Snapshotter) View(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	return detach(ctx, s, func(ctx context.Context) ([]mount.Mount, error) {
		defer s.activity.begin()()
		return s.create(ctx, snapshots.KindView, key, parent, opts)
	})
}

func (s *Snapshotter) create(ctx context.Context, kind snapshots.Kind, key, parent string, opts []snapshots.Opt) (_ []mount.Mount, err error) {
	info, err := newInfo(kind, key, parent, opts)
	if err != nil {
		return nil, err
	}
	if err := checkLabels(info); err != nil {
		return nil, err
	}
	lost := s.restore(ctx, parent)
	unlock, err := s.keys.lockAll(ctx, s.namesToLock(info)...)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := s.renameAside(ctx, key); err != nil {
		return nil, err
	}
	t, seq, abandon, err := s.index.reserve(key, parent, s.empty)
	if errdefs.IsNotFound(err) && lost != nil {
		return nil, fmt.Errorf("parent of %q: %w", key, lost)
	}
	if err != nil {
		return nil, err
	}
	r := &record{id: layout.NewID(), seq: seq, info: info, template: t, dataset: t.Dataset()}
	if p, err := s.index.get(parent); err == nil { // is there until r is, or abandon
		r.remapped = p.remapped
	}
	if kind == snapshots.KindView {
		defer s.startViewMount(ctx, t)() // while the pool writes the record
	}
	if err := s.createIn(ctx, r); err != nil {
		abandon()
		return nil, err
	}
	s.index.add(r, t)
	mounts, err := s.mountsOf(ctx, r)
	if err != nil {
		// The caller takes it for not made.
		s.remove(key)
		return nil, err
	}
	return mounts, nil
}

// checkLabels refuses labels that mean something to us and make no sense,
// before anything is changed.
func checkLabels(info snapshots.Info) error {
	if _, err := idmapOptions(info); err != nil {
		return err
	}
	if _, err := reuseLabel(info); err != nil {
		return err
	}
	_, err := maxSize(info)
	return err
}

// namesTouched are the names that making a snapshot may take, sorted: its key
// and, where it may revive a layer, the name of that layer's record.
func (s *Snapshotter) namesToLock(info snapshots.Info) []string {
	names := []string{info.Name}
	if ref, mode := s.requestedLayer(info); mode == ReuseSkip {
		names = append(names, reusableName(info.Name, ref))
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// createIn writes a new record to the pool, with a clone under an active one.
func (s *Snapshotter) createIn(ctx context.Context, r *record) error {
	if r.info.Kind != snapshots.KindActive {
		return createError(r, s.writeRecord(ctx, r, nil, s.apply))
	}
	if err := s.reuse(ctx, r); err != nil {
		return err
	}
	s.relievePressureIfDue() // not before it is known that the layer itself is not there
	err := s.createClone(ctx, r)
	if err != nil && s.undoReuse(ctx, r, err) {
		err = s.createClone(ctx, r)
	}
	return err
}

// createClone writes a new active record with its clone.
func (s *Snapshotter) createClone(ctx context.Context, r *record) error {
	r.target = target(r.info)
	r.dataset = s.config.Base.Clone(r.info.Name, r.id)
	quota, err := s.quota(ctx, r)
	if err != nil {
		return err
	}
	var ops []zfs.Op
	if quota > 0 {
		// Between the clone and its record: a clone that has a record has
		// its quota.
		ops = append(ops, zfs.Quota(r.dataset, quota))
	}
	return createError(r, s.writeClone(ctx, r, ops, s.apply))
}

func createError(r *record, err error) error {
	return poolError(fmt.Sprintf("%s of %q on %q", verbOf(r.info.Kind), r.info.Name, r.info.Parent), err)
}

// writeClone makes the clone of an active record, does more to it, and writes the
// record on it.
func (s *Snapshotter) writeClone(ctx context.Context, r *record, more []zfs.Op, apply applier) error {
	return s.writeRecord(ctx, r, append([]zfs.Op{zfs.Clone(r.template.Snapshot(), r.dataset)}, more...), apply)
}

// writeRecord writes a new record, and before it what it needs.
func (s *Snapshotter) writeRecord(ctx context.Context, r *record, ops []zfs.Op, apply applier) error {
	set, err := r.set()
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	err = apply(ctx, append(ops, set...)...)
	if ambiguous(err) {
		s.rollBackCreate(r)
	}
	return err
}

func verbOf(kind snapshots.Kind) string {
	if kind == snapshots.KindView {
		return "view"
	}
	return "prepare"
}

func newInfo(kind snapshots.Kind, name, parent string, opts []snapshots.Opt) (snapshots.Info, error) {
	if err := checkName("key", name); err != nil {
		return snapshots.Info{}, err
	}
	info, err := applyOpts(opts)
	if err != nil {
		return snapshots.Info{}, err
	}
	now := time.Now().UTC()
	return snapshots.Info{Kind: kind, Name: name, Parent: parent, Labels: info.Labels, Created: now, Updated: now}, nil
}

// fold is what the options of a call add up to.
func applyOpts(opts []snapshots.Opt) (snapshots.Info, error) {
	var info snapshots.Info
	for _, opt := range opts {
		if err := opt(&info); err != nil {
			return snapshots.Info{}, err
		}
	}
	return info, nil
}

// target is the chain ID an active snapshot says it will become: by
// containerd's label, else by the form of an extraction's key. It is a hint
// until Commit names the same.
func target(info snapshots.Info) string {
	if ref := info.Labels[snapshots.LabelSnapshotRef]; layout.IsChainID(ref) {
		return ref
	}
	chain, _ := layout.ExtractTarget(layout.ClientName(info.Name))
	return chain
}

// extracts tells whether an active snapshot is there to unpack a layer into. Its
// labels are then annotations of an image, which anybody may have written.
func isExtraction(info snapshots.Info) bool {
	return info.Kind == snapshots.KindActive && (info.Labels[snapshots.LabelSnapshotRef] != "" || target(info) != "")
}

// layer is the template of a layer, as the snapshot called name has it: shared
// by all namespaces or its namespace's own.
func (s *Snapshotter) layer(ctx context.Context, name, chain string) (layout.Template, error) {
	if s.ownTemplates(ctx) {
		return s.config.Base.OwnLayer(layout.Namespace(name), chain)
	}
	return s.config.Base.Layer(chain)
}

// revive returns AlreadyExists when the layer that r is to become is in the pool on r's
// parent, and gives it a record when it has none that containerd would find. It is for
// what asks for a layer by label: elsewhere AlreadyExists only means that the key is
// taken.
//
// containerd then walks all snapshots and takes the first with that label and parent,
// in whatever namespace. Where namespaces share nothing see ownIsFound.
func (s *Snapshotter) skipLayer(ctx context.Context, r *record, ref string) error {
	if s.ownTemplates(ctx) && !findsOwnLayer(ctx, r) {
		return nil
	}
	layer, err := s.layer(ctx, r.info.Name, ref)
	if err != nil {
		return err
	}
	unlock, err := s.data.lock(ctx, layer.Dataset())
	if err != nil {
		return err
	}
	defer unlock()

	t, found := s.index.findLayer(layer, r.template, r.info.Parent, ref)
	if t == nil {
		return nil
	}
	exists := fmt.Errorf("layer %s is in the pool: %w", ref, errdefs.ErrAlreadyExists)
	if found {
		return exists
	}
	defer s.index.unpin(t)
	committed := &record{
		id: layout.NewID(), seq: r.seq, info: r.info, dataset: t.Dataset(), template: t,
	}
	committed.info.Kind = snapshots.KindCommitted
	committed.info.Name = reusableName(r.info.Name, ref)
	if s.index.taken(committed.info.Name) {
		// containerd counts from 1 again, and an older record has the name.
		// AlreadyExists would promise one that containerd does not find: let
		// it extract, the commit then joins the template.
		return nil
	}
	if err := s.addCommitted(ctx, committed); err != nil {
		if s.index.dropLost(t, err) {
			log.G(ctx).WithError(err).WithField("template", t.Dataset()).Warn("somebody destroyed a cached template; the layer is unpacked anew")
			return nil
		}
		return err
	}
	log.G(ctx).WithField("key", r.info.Name).WithField("template", t.Dataset()).Debug("revived a layer that was in the pool")
	return exists
}

// ownIsFound tells whether what containerd takes for a layer that is revived is of
// the namespace that asks. It is when the caller says his namespace, as containerd
// 2 does, for Walk then shows his own first; and it is on a parent that nobody
// else can stand on. So a containerd 1.7, which does not say it, unpacks the
// bottom layer and finds the others.
func findsOwnLayer(ctx context.Context, r *record) bool {
	asks := layout.Namespace(r.info.Name)
	if ns, ok := namespaces.Namespace(ctx); ok {
		return ns == asks
	}
	return layout.Namespace(r.info.Parent) == asks && r.template.OwnedBy(asks)
}

// reusableName is the committed name for a layer that was asked for under an
// extraction's key: containerd's prefix, which makes it unique, and the chain
// ID in place of the client's part.
func reusableName(key, chain string) string {
	return strings.TrimSuffix(key, layout.ClientName(key)) + chain
}

// layerOn answers the template of a layer if it is whole and stands on parent,
// and whether a record exists by which containerd will find it: committed, with
// the label and that parent name. When it is not found so, the template is
// pinned.
func (x *index) findLayer(layer layout.Template, parent *template, parentName, ref string) (t *template, found bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	t = x.templates[layer.Dataset()]
	if t == nil || t.parent != parent {
		return nil, false
	}
	for _, r := range x.byDataset[t.Dataset()] {
		if r.info.Kind == snapshots.KindCommitted && !x.hidden[r.info.Name] && r.info.Parent == parentName && r.info.Labels[snapshots.LabelSnapshotRef] == ref {
			return t, true
		}
	}
	t.pins++
	return t, false
}

// lost tells whether an error says that a cached template is no longer there, and
// forgets it then.
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

func (x *index) unpin(t *template) {
	x.mu.Lock()
	defer x.mu.Unlock()
	t.pins--
}

// addCommitted gives a template one more record. The caller holds the
// template's lock or has pinned it.
func (s *Snapshotter) addCommitted(ctx context.Context, r *record) error {
	if s.index.taken(r.info.Name) {
		return fmt.Errorf("snapshot %q: %w", r.info.Name, errdefs.ErrAlreadyExists)
	}
	set, err := r.set()
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.apply(ctx, set...); err != nil {
		if ambiguous(err) {
			s.rollBackCreate(r)
		}
		return poolError(fmt.Sprintf("record %q", r.info.Name), err)
	}
	s.index.mu.Lock()
	defer s.index.mu.Unlock()
	s.index.addChild(r.info.Parent)
	s.index.insert(r)
	return nil
}
