package snapshotter

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"

	"github.com/zfstpl/zfstpl/snapshotter/errkind"
	"github.com/zfstpl/zfstpl/snapshotter/internal/index"
	"github.com/zfstpl/zfstpl/snapshotter/internal/record"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// Prepare creates a runtime: a clone of the parent's template, with its record.
//
// The label containerd.io/snapshot.ref requests a layer by its chain ID. If the layer is
// in the pool on the same parent, cached or in use, Prepare reuses it in the mode of
// Config.ReuseLayers: in ReuseSkip it returns AlreadyExists, see skipLayer, and in ReuseFetch
// it creates a stand-in, see standIn.
func (s *Snapshotter) Prepare(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	return detach(ctx, s.gate, func(ctx context.Context) ([]mount.Mount, error) {
		defer s.reaper.BeginWrite()()
		return s.create(ctx, snapshots.KindActive, key, parent, opts)
	})
}

// View creates a record on the parent's template. Clients mount the template's snapshot.
func (s *Snapshotter) View(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	return detach(ctx, s.gate, func(ctx context.Context) ([]mount.Mount, error) {
		defer s.reaper.BeginWrite()()
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
	unlock, err := s.locks.keys.LockAll(ctx, s.namesToLock(info)...)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := s.renameAside(ctx, key); err != nil {
		return nil, err
	}
	t, seq, abandon, err := s.index.Reserve(key, parent, s.config.Base.Empty())
	if errdefs.IsNotFound(err) && lost != nil {
		return nil, fmt.Errorf("parent of %q: %w", key, lost)
	}
	if err != nil {
		return nil, err
	}
	r := &index.Entry{Record: record.Record{ID: layout.NewID(), Seq: seq, Info: info, Dataset: t.Dataset()}, Template: t}
	if p, err := s.index.Get(parent); err == nil { // exists, except for a parent of ""
		r.Remapped = p.Remapped
	}
	if kind == snapshots.KindView {
		defer s.startViewMount(ctx, t)() // concurrent with the write of the record
	}
	if err := s.createIn(ctx, r); err != nil {
		abandon()
		return nil, err
	}
	s.index.Add(r, t, time.Now())
	mounts, err := s.mountsOf(ctx, r)
	if err != nil {
		s.remove(key) // for the caller the snapshot does not exist
		return nil, err
	}
	return mounts, nil
}

// startViewMount mounts a template in a goroutine. done waits for it. The caller has pinned
// the template.
func (s *Snapshotter) startViewMount(ctx context.Context, t *index.Template) (done func()) {
	mounted := make(chan struct{})
	go func() {
		defer close(mounted)
		s.mounts.AttachView(context.WithoutCancel(ctx), t.Dataset(), t.Snapshot())
	}()
	return func() { <-mounted }
}

// renameAside renames the snapshot that has key, if it is active or a view and key has
// containerd's form. containerd numbers its keys by a sequence in its database, so it uses a
// number twice only if the database is new or older than the pool. containerd does not know
// the old snapshot then. Its next garbage collection removes the snapshot under any name,
// and until then nothing is lost. A key without a number is a client's own and stays.
//
// The caller holds the lock of key.
func (s *Snapshotter) renameAside(ctx context.Context, key string) error {
	old := s.index.RenameCandidate(key)
	if old == nil {
		return nil
	}
	r := *old
	r.ID, r.Seq = layout.NewID(), s.index.Next()
	r.Info.Name = key + "-unknown-to-containerd-" + r.ID.String()
	r.Info.Updated = time.Now().UTC()
	if err := s.replaceRecord(ctx, fmt.Sprintf("rename of %q, which containerd does not know", key), old, &r); err != nil {
		return err
	}
	s.index.Rename(old, &r)
	log.G(ctx).WithField("key", key).WithField("name", r.Info.Name).WithField("dataset", r.Dataset).
		Warn("renamed snapshot that is unknown to containerd")
	return nil
}

// checkLabels returns an error if a label that this package interprets is malformed.
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

// namesToLock returns the names that creating a snapshot may use: its key and, in mode
// ReuseSkip, the name of the layer's record.
func (s *Snapshotter) namesToLock(info snapshots.Info) []string {
	if ref, mode := s.requestedLayer(info); mode == ReuseSkip {
		return []string{info.Name, reusableName(info.Name, ref)}
	}
	return []string{info.Name}
}

// createIn writes a new record to the pool. It creates the clone of an active one.
func (s *Snapshotter) createIn(ctx context.Context, r *index.Entry) error {
	if r.Info.Kind != snapshots.KindActive {
		return createError(r, s.writeRecord(ctx, r, nil, s.apply))
	}
	if err := s.reuse(ctx, r); err != nil {
		return err
	}
	s.reaper.RelievePressureIfDue() // after reuse, which has pinned the requested layer if it is in the pool
	err := s.createClone(ctx, r)
	if err != nil && s.undoReuse(ctx, r, err) {
		err = s.createClone(ctx, r)
	}
	return err
}

// createClone creates the clone of an active record, with the record.
func (s *Snapshotter) createClone(ctx context.Context, r *index.Entry) error {
	r.Target = record.TargetOf(r.Info)
	quota, err := s.quota(ctx, r)
	if err != nil {
		return err
	}
	if !record.IsExtraction(r.Info) && s.usesReady(ctx) {
		defer s.ready.started(r.Template, time.Now())
	}
	claimed, err := s.claim(ctx, r, quota)
	if claimed {
		return createError(r, err)
	}
	r.Dataset = s.config.Base.Clone(r.Info.Name, r.ID)
	ops := []zfs.Op{zfs.Clone(r.Template.Snapshot(), r.Dataset)}
	if quota > 0 {
		// Before the record, so that a clone with a record has its quota.
		ops = append(ops, zfs.Quota(r.Dataset, quota))
	}
	return createError(r, s.writeRecord(ctx, r, ops, s.apply))
}

func createError(r *index.Entry, err error) error {
	verb := "prepare"
	if r.Info.Kind == snapshots.KindView {
		verb = "view"
	}
	return errkind.Wrap(fmt.Sprintf("%s of %q on %q", verb, r.Info.Name, r.Info.Parent), err)
}

func newInfo(kind snapshots.Kind, name, parent string, opts []snapshots.Opt) (snapshots.Info, error) {
	if err := record.CheckName("key", name); err != nil {
		return snapshots.Info{}, err
	}
	info, err := applyOpts(opts)
	if err != nil {
		return snapshots.Info{}, err
	}
	now := time.Now().UTC()
	return snapshots.Info{Kind: kind, Name: name, Parent: parent, Labels: info.Labels, Created: now, Updated: now}, nil
}

// applyOpts returns the result of applying opts to an empty Info.
func applyOpts(opts []snapshots.Opt) (snapshots.Info, error) {
	var info snapshots.Info
	for _, opt := range opts {
		if err := opt(&info); err != nil {
			return snapshots.Info{}, err
		}
	}
	return info, nil
}

// lockLayer returns the template of a layer for the snapshot name: one that all namespaces
// share, or that of name's own namespace. Its dataset is locked until the caller calls
// unlock, so that no cleanup destroys it.
func (s *Snapshotter) lockLayer(ctx context.Context, name, chain string) (layer layout.Template, unlock func(), err error) {
	if s.ownTemplates(ctx) {
		layer, err = s.config.Base.OwnLayer(layout.Namespace(name), chain)
	} else {
		layer, err = s.config.Base.Layer(chain)
	}
	if err != nil {
		return layer, nil, err
	}
	unlock, err = s.locks.datasets.Lock(ctx, layer.Dataset())
	return layer, unlock, err
}

// skipLayer returns AlreadyExists if the layer that r requests is in the pool on r's
// parent. It adds a record if the layer has none that containerd would find. Without the
// label, AlreadyExists would mean that the key exists: only requests by label may call
// skipLayer.
//
// At AlreadyExists containerd walks all snapshots and takes the first with that label and
// parent, in any namespace. If namespaces share no templates, see findsOwnLayer.
func (s *Snapshotter) skipLayer(ctx context.Context, r *index.Entry, ref string) error {
	if s.ownTemplates(ctx) && !findsOwnLayer(ctx, r) {
		return nil
	}
	layer, unlock, err := s.lockLayer(ctx, r.Info.Name, ref)
	if err != nil {
		return err
	}
	defer unlock()

	t, found := s.index.FindLayer(layer, r.Template, r.Info.Parent, ref)
	if t == nil {
		return nil
	}
	exists := fmt.Errorf("layer %s is in the pool: %w", ref, errdefs.ErrAlreadyExists)
	if found {
		return exists
	}
	defer s.index.Unpin(t)
	committed := &index.Entry{Record: record.Record{ID: layout.NewID(), Seq: r.Seq, Info: r.Info, Dataset: t.Dataset()}, Template: t}
	committed.Info.Kind = snapshots.KindCommitted
	committed.Info.Name = reusableName(r.Info.Name, ref)
	if s.index.Taken(committed.Info.Name) {
		// containerd's database is new and numbers from 1, and an older record has the
		// name. containerd would not find the record after AlreadyExists. So it unpacks
		// the layer, and the commit joins the template.
		return nil
	}
	if err := s.addCommitted(ctx, committed); err != nil {
		if s.index.DropLost(t, err) {
			log.G(ctx).WithError(err).WithField("template", t.Dataset()).Warn("cached template is missing; unpacking the layer again")
			return nil
		}
		return err
	}
	log.G(ctx).WithField("key", r.Info.Name).WithField("template", t.Dataset()).Debug("added record of layer in the pool")
	return exists
}

// findsOwnLayer reports whether the record that containerd finds after AlreadyExists
// belongs to the namespace of the request. It does if the caller's context has the
// namespace, as with containerd 2, because Walk then returns that namespace first. It does
// too if only that namespace can use the parent. So containerd 1.7, which does not send
// the namespace, unpacks the lowest layer and reuses the others.
func findsOwnLayer(ctx context.Context, r *index.Entry) bool {
	own := layout.Namespace(r.Info.Name)
	if ns, ok := namespaces.Namespace(ctx); ok {
		return ns == own
	}
	return layout.Namespace(r.Info.Parent) == own && r.Template.OwnedBy(own)
}

// reusableName returns the name of the record for a layer that was requested under an
// extraction's key: containerd's prefix, which makes it unique, and the chain ID in place
// of the client's part.
func reusableName(key, chain string) string {
	return strings.TrimSuffix(key, layout.ClientName(key)) + chain
}

// addCommitted adds a record to a template. The caller has locked the name of the record, which
// no other record has, and has locked or pinned the template.
func (s *Snapshotter) addCommitted(ctx context.Context, r *index.Entry) error {
	if err := s.addRecord(ctx, r, s.apply); err != nil {
		return errkind.Wrap(fmt.Sprintf("record %q", r.Info.Name), err)
	}
	s.index.AddCommitted(r)
	return nil
}
