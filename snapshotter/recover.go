package snapshotter

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/log"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// recovery makes an index of a listing. What it cannot make sense of it says in
// the log and leaves alone.
type recovery struct {
	*Snapshotter
	ctx context.Context

	createTXG map[string]uint64 // the txg that made each dataset
	records   []*record
	// partials are datasets under storage without @extracted: commits and
	// preparations of the base that a crash cut off.
	partials []string
	// residue are snapshots of runtimes that a commit took and did not get to
	// promote. A half is a clone of one, so they go after the halves.
	residue []string
}

// recover rebuilds the index from one listing of the pool and takes back
// commits that a crash cut off.
func (s *Snapshotter) recover(ctx context.Context) error {
	list, err := s.pool.List(ctx, s.config.Base.String())
	if err != nil {
		return baseError(s.config.Base, err)
	}
	if err := CheckBase(s.config.Base, list); err != nil {
		return err
	}
	if err := s.readMark(ctx, list); err != nil {
		return err
	}
	slices.SortFunc(list, func(a, b zfs.Dataset) int { return cmp.Compare(a.CreateTXG, b.CreateTXG) })
	r := recovery{Snapshotter: s, ctx: ctx, createTXG: make(map[string]uint64)}
	for _, d := range list {
		r.createTXG[d.Name] = d.CreateTXG
	}
	r.resetMountpoints(list)
	r.templates(list)
	if s.empty = s.index.templates[s.config.Base.Empty().Dataset()]; s.empty == nil {
		return fmt.Errorf("%s is missing: run 'zfstpl init %s', which completes a base", s.config.Base.Empty().Snapshot(), s.config.Base)
	}
	r.runtimes(list)
	r.indexRecords()
	if err := r.resolveCommits(); err != nil {
		return err
	}
	r.linkParents()
	if err := r.rollBack(); err != nil {
		return err
	}
	r.clearPartialRecords(list)
	r.destroyTemporarySnapshots(list)
	return nil
}

// destroyTemporarySnapshots destroys the snapshots that somebody looked at who was killed. Those that
// are looked at are busy, and stay.
func (r *recovery) destroyTemporarySnapshots(list []zfs.Dataset) {
	for _, d := range list {
		for _, short := range d.Snapshots {
			if !strings.HasPrefix(short, zfs.TemporaryPrefix) {
				continue
			}
			if err := r.pool.DestroySnapshot(r.ctx, d.Name+"@"+short); err != nil {
				log.G(r.ctx).WithError(err).WithField("dataset", d.Name).Info("a snapshot that is being compared stays")
			}
		}
	}
}

// clearPartialRecords has the queue take away the remains of records from what is in use.
func (r *recovery) clearPartialRecords(list []zfs.Dataset) {
	for _, d := range list {
		_, dying := r.index.garbage[d.Name]
		_, isRuntime := r.config.Base.ParseRuntime(d.Name)
		if ops := partialRecordOps(d); len(ops) > 0 && !dying && (isRuntime || r.index.templates[d.Name] != nil) {
			r.journal.pending = append(r.journal.pending, ops)
		}
	}
}

// templates indexes the whole templates, then ties each to its parent.
func (r *recovery) templates(list []zfs.Dataset) {
	base := r.config.Base
	for _, d := range list {
		if d.Name == base.String() || d.Name == base.Storage() || d.Name == base.Runtime() {
			continue
		}
		st := classify(base, d)
		switch {
		case st.problem != "":
			r.skip(d, st.problem)
		case st.state == StateForeign:
			r.skip(d, "it was not made by zfstpl")
		}
		if name, ok := base.ParseTemplate(d.Name); ok {
			r.template(name, d, st)
		}
	}
	for _, d := range list {
		t := r.index.templates[d.Name]
		if t == nil || t.IsEmpty() {
			continue
		}
		if t.parent = r.origin(d); t.parent == nil {
			t.held = true
		}
		if t.from.isKnown() && !t.matches(t.from.diffID) {
			r.skip(d, "its "+propDiffID+" does not give its chain ID, and is ignored")
			t.from = provenance{}
		}
	}
}

func (r *recovery) template(name layout.Template, d zfs.Dataset, st classification) {
	if !d.HasSnapshot(layout.Extracted) {
		if st.state == StatePartial {
			r.partials = append(r.partials, d.Name)
		} else {
			r.index.reservedNames[d.Name] = true
		}
		return
	}
	// What has a problem is held: a record that cannot be read may be of it.
	t := &template{Template: name, idle: lastUsed(d), from: readProvenance(d), held: st.problem != ""}
	r.index.templates[d.Name] = t
	for _, rec := range st.records {
		if rec.info.Kind != snapshots.KindActive {
			rec.template = t
			r.records = append(r.records, rec)
		}
	}
}

func (r *recovery) runtimes(list []zfs.Dataset) {
	for _, d := range list {
		if _, ok := r.config.Base.ParseRuntime(d.Name); !ok {
			continue
		}
		st := classify(r.config.Base, d)
		if st.problem != "" {
			continue // it was said already
		}
		if d.HasSnapshot(layout.Extracted) {
			r.residue = append(r.residue, d.Name+"@"+layout.Extracted)
		}
		r.runtime(d, st)
	}
}

func (r *recovery) runtime(d zfs.Dataset, st classification) {
	_, marked := d.Props[propGarbage]
	switch {
	case st.state == StateUsed:
		if marked {
			// The record goes before the mark comes: it was written again, behind a commit
			// whose caller was told that it failed, and the mark was to be taken away.
			r.repair([]zfs.Op{zfs.Inherit(d.Name, propGarbage)})
		}
		r.active(d, st.records)
	case marked:
		r.index.discard(d.Name, r.origin(d))
	case r.origin(d) == nil:
		r.skip(d, "its origin is not among the templates")
	default:
		r.index.discard(d.Name, r.origin(d))
		r.journal.pending = append(r.journal.pending, []zfs.Op{zfs.Set(d.Name, propGarbage, stamp(time.Now()))})
	}
}

// active adopts the record of a runtime. An update that was cut off leaves two,
// of which the newer counts.
func (r *recovery) active(d zfs.Dataset, records []*record) {
	newest := slices.MaxFunc(records, func(a, b *record) int { return cmp.Compare(a.seq, b.seq) })
	newest.template = r.origin(d)
	r.records = append(r.records, newest)
	for _, old := range records {
		if old != newest {
			r.repair(old.clear())
		}
	}
}

// repair has the queue change a dataset that is in use, before anybody else does.
func (r *recovery) repair(ops []zfs.Op) {
	r.journal.pending = append(r.journal.pending, ops)
	r.journal.repairs = len(r.journal.pending)
}

func sameActive(records []*record) bool {
	return !slices.ContainsFunc(records, func(r *record) bool {
		return r.info.Kind != snapshots.KindActive || r.info.Name != records[0].info.Name
	})
}

// origin answers the template a dataset is a clone of, or nil.
func (r *recovery) origin(d zfs.Dataset) *template {
	name, ok := r.config.Base.ParseExtracted(d.Origin)
	if !ok {
		return nil
	}
	return r.index.templates[name.Dataset()]
}

func lastUsed(d zfs.Dataset) time.Time {
	if t, err := time.Parse(time.RFC3339, d.Props[propLastUsed]); err == nil {
		return t
	}
	return d.Created
}

// indexRecords makes the records visible. Of two that claim one name the newer
// is valid; the older was removed, and the machine died before the pool knew.
func (r *recovery) indexRecords() {
	x := r.index
	slices.SortFunc(r.records, func(a, b *record) int { return cmp.Compare(b.seq, a.seq) })
	for _, rec := range r.records {
		x.seq = max(x.seq, rec.seq)
		if x.records[rec.info.Name] != nil {
			r.supersede(rec)
			continue
		}
		x.insert(rec)
	}
}

// linkParents counts every record as a child of its parent.
func (r *recovery) linkParents() {
	x := r.index
	for _, rec := range x.records {
		parent := x.records[rec.info.Parent]
		if rec.info.Parent != "" && (parent == nil || parent.info.Kind != snapshots.KindCommitted) {
			log.G(r.ctx).WithField("snapshot", rec.info.Name).WithField("parent", rec.info.Parent).
				Warn("the parent of a snapshot is gone; it is shown without one, so that containerd can remove it")
			rec.info.Parent, rec.lost = "", rec.info.Parent
		}
		x.addChild(rec.info.Parent)
	}
}

func (r *recovery) supersede(rec *record) {
	ops, now := rec.clear(), time.Now()
	if rec.info.Kind == snapshots.KindActive {
		ops = append(ops, zfs.Set(rec.dataset, propGarbage, stamp(now)))
		r.index.discard(rec.dataset, rec.template)
	} else {
		rec.template.idle = now
		ops = append(ops, zfs.Set(rec.dataset, propLastUsed, stamp(now)))
	}
	r.journal.pending = append(r.journal.pending, ops)
}

// settleCommits ends commits that were cut off between promote and the trash
// mark. One whose record is there is finished. One without is taken back: a
// runtime that is older than the template it is a clone of was the other way
// round before, and only a commit of it does that.
func (r *recovery) resolveCommits() error {
	x := r.index
	made := make(map[string]bool) // IDs of active records that were committed
	for _, rec := range x.records {
		made[rec.from] = rec.from != ""
	}
	for _, active := range x.sorted() {
		t := active.template
		if active.info.Kind != snapshots.KindActive {
			continue
		}
		if made[active.id.String()] {
			x.unlinkRecord(active)
			r.journal.pending = append(r.journal.pending, append(active.clear(), zfs.Set(active.dataset, propGarbage, stamp(time.Now()))))
			x.discard(active.dataset, t)
			continue
		}
		if t == nil || t.held || t.records > 0 || active.standInFor != "" || r.createTXG[active.dataset] >= r.createTXG[t.Dataset()] {
			continue
		}
		if err := r.pool.Apply(r.ctx, zfs.Promote(active.dataset, t.Dataset())); err != nil {
			if errors.Is(err, zfs.ErrSuspended) || r.ctx.Err() != nil {
				return poolError(fmt.Sprintf("take back the commit of %q", active.info.Name), err)
			}
			t.held = true // active goes on as its clone, and the next start tries again
			log.G(r.ctx).WithError(err).WithField("snapshot", active.info.Name).WithField("dataset", t.Dataset()).
				Warn("a commit that was cut off could not be taken back; its snapshot is there, and can be used")
			continue
		}
		delete(x.templates, t.Dataset())
		active.template = t.parent
		r.partials = append(r.partials, t.Dataset())
		r.residue = append(r.residue, active.dataset+"@"+layout.Extracted)
	}
	return nil
}

// rollBack undoes commits that were cut off before promote: the runtime is
// active as before.
func (r *recovery) rollBack() error {
	left, err := r.pool.Destroy(r.ctx, layout.Extracted, r.partials)
	if err != nil {
		return poolError("take back a commit that was cut off", err)
	}
	for dataset, err := range left {
		r.index.discard(dataset, nil)
		log.G(r.ctx).WithError(err).WithField("dataset", dataset).Warn("the remains of a commit could not be destroyed yet")
	}
	for _, snapshot := range r.residue {
		if err := r.pool.DestroySnapshot(r.ctx, snapshot); err != nil {
			runtime, _, _ := strings.Cut(snapshot, "@")
			r.index.residue[runtime] = ""
			log.G(r.ctx).WithError(err).WithField("snapshot", snapshot).Warn("the remains of a commit could not be destroyed yet")
		}
	}
	return nil
}

// skip says in the log why a dataset, or something on it, is left alone.
func (r *recovery) skip(d zfs.Dataset, why string) {
	log.G(r.ctx).WithField("dataset", d.Name).Warn("left alone: " + why)
}
