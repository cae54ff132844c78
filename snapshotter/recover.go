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

	"github.com/zfstpl/zfstpl/snapshotter/errkind"
	"github.com/zfstpl/zfstpl/snapshotter/internal/record"
	"github.com/zfstpl/zfstpl/snapshotter/internal/state"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/setup"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// recovery builds the index from a listing of the pool. It logs and skips datasets that
// have a problem.
type recovery struct {
	*Snapshotter
	ctx context.Context

	createTXG map[string]uint64 // the txg that created each dataset
	records   []*entry
	// partials are the datasets under storage without @extracted. An interrupted commit
	// or setup.Init leaves them.
	partials []string
	// residue are the snapshots of runtimes that an interrupted commit took. A partial
	// is a clone of such a snapshot, so the partials are destroyed first.
	residue []string
}

// recover builds the index from one listing of the pool. It finishes or rolls back
// interrupted commits.
func (s *Snapshotter) recover(ctx context.Context) error {
	list, err := s.pool.List(ctx, s.config.Base.String())
	if err != nil {
		return setup.ListError(s.config.Base, err)
	}
	if err := setup.Check(s.config.Base, list); err != nil {
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

// destroyTemporarySnapshots destroys the snapshots that killed comparisons left. A
// snapshot that a comparison still uses is busy and is kept.
func (r *recovery) destroyTemporarySnapshots(list []zfs.Dataset) {
	for _, d := range list {
		for _, short := range d.Snapshots {
			if !strings.HasPrefix(short, zfs.TemporaryPrefix) {
				continue
			}
			if err := r.pool.DestroySnapshot(r.ctx, d.Name+"@"+short); err != nil {
				log.G(r.ctx).WithError(err).WithField("dataset", d.Name).Info("failed to destroy temporary snapshot")
			}
		}
	}
}

// clearPartialRecords adds to the journal the removal of partial records. It leaves
// garbage out.
func (r *recovery) clearPartialRecords(list []zfs.Dataset) {
	for _, d := range list {
		_, dying := r.index.garbage[d.Name]
		_, isRuntime := r.config.Base.ParseRuntime(d.Name)
		if ops := record.ClearPartial(d); len(ops) > 0 && !dying && (isRuntime || r.index.templates[d.Name] != nil) {
			r.journal.Append(ops)
		}
	}
}

// templates adds all templates to the index and then links each to its parent.
func (r *recovery) templates(list []zfs.Dataset) {
	base := r.config.Base
	for _, d := range list {
		if d.Name == base.String() || d.Name == base.Storage() || d.Name == base.Runtime() {
			continue
		}
		st := state.Classify(base, d)
		switch {
		case st.Problem != "":
			r.skip(d, st.Problem)
		case st.State == state.Foreign:
			r.skip(d, "not created by zfstpl")
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
		if t.from.IsKnown() && !t.matches(t.from.DiffID) {
			log.G(r.ctx).WithField("dataset", d.Name).WithField("property", record.DiffIDProperty).
				WithField("reason", "the diff ID and the parent do not give the template's chain ID").Warn("ignoring property of template")
			t.from = record.Provenance{}
		}
	}
}

// template adds one template to the index, or a partial to r.partials.
func (r *recovery) template(name layout.Template, d zfs.Dataset, st state.Classification) {
	if !d.HasSnapshot(layout.Extracted) {
		if st.State == state.Partial {
			r.partials = append(r.partials, d.Name)
		} else {
			r.index.reservedNames[d.Name] = true
		}
		return
	}
	// A template with a problem is never destroyed: an unreadable record may name it.
	t := &template{Template: name, idle: record.LastUsed(d), from: record.ReadProvenance(d), held: st.Problem != ""}
	r.index.templates[d.Name] = t
	for _, rec := range st.Records {
		if rec.Info.Kind != snapshots.KindActive {
			r.records = append(r.records, &entry{Record: *rec, template: t})
		}
	}
}

// runtimes adds all runtimes without a problem to the index.
func (r *recovery) runtimes(list []zfs.Dataset) {
	for _, d := range list {
		if _, ok := r.config.Base.ParseRuntime(d.Name); !ok {
			continue
		}
		st := state.Classify(r.config.Base, d)
		if st.Problem != "" {
			continue // templates has logged it
		}
		if d.HasSnapshot(layout.Extracted) {
			r.residue = append(r.residue, d.Name+"@"+layout.Extracted)
		}
		r.runtime(d, st)
	}
}

func (r *recovery) runtime(d zfs.Dataset, st state.Classification) {
	switch {
	case st.State == state.Used:
		r.active(d, st.Records)
	case r.origin(d) == nil:
		r.skip(d, "its origin is not a template of this base")
	default:
		r.index.discard(d.Name, r.origin(d))
	}
}

// active takes over the record of a runtime. An interrupted update leaves two records;
// the newer one is valid and the older one is removed.
func (r *recovery) active(d zfs.Dataset, records []*record.Record) {
	newest := slices.MaxFunc(records, func(a, b *record.Record) int { return cmp.Compare(a.Seq, b.Seq) })
	r.records = append(r.records, &entry{Record: *newest, template: r.origin(d)})
	for _, old := range records {
		if old != newest {
			r.repair(old.Clear())
		}
	}
}

// repair adds ops to the journal as a repair: the barrier writes them before any other
// operation changes the dataset.
func (r *recovery) repair(ops []zfs.Op) {
	r.journal.AppendRepair(ops)
}

// origin returns the template of which a dataset is a clone, or nil.
func (r *recovery) origin(d zfs.Dataset) *template {
	name, ok := r.config.Base.ParseExtracted(d.Origin)
	if !ok {
		return nil
	}
	return r.index.templates[name.Dataset()]
}

// indexRecords adds the records to the index. Of two records with the same name the newer
// one is valid: the older one was removed, and a crash came before its removal was written.
func (r *recovery) indexRecords() {
	x := r.index
	slices.SortFunc(r.records, func(a, b *entry) int { return cmp.Compare(b.Seq, a.Seq) })
	for _, rec := range r.records {
		x.seq = max(x.seq, rec.Seq)
		if x.records[rec.Info.Name] != nil {
			r.supersede(rec)
			continue
		}
		x.insert(rec)
	}
}

// linkParents counts every record as a child of its parent. It shows a record whose
// parent is missing without a parent.
func (r *recovery) linkParents() {
	x := r.index
	for _, rec := range x.records {
		parent := x.records[rec.Info.Parent]
		if rec.Info.Parent != "" && (parent == nil || parent.Info.Kind != snapshots.KindCommitted) {
			log.G(r.ctx).WithField("snapshot", rec.Info.Name).WithField("parent", rec.Info.Parent).
				WithField("effect", "the snapshot is shown without a parent, so that containerd can remove it").
				Warn("parent of snapshot is missing")
			rec.Info.Parent, rec.Lost = "", rec.Info.Parent
		}
		x.addChild(rec.Info.Parent)
	}
}

// supersede adds to the journal the removal of a record that a newer one replaces.
func (r *recovery) supersede(rec *entry) {
	ops, now := rec.Clear(), time.Now()
	if rec.Info.Kind == snapshots.KindActive {
		r.index.discard(rec.Dataset, rec.template)
	} else {
		rec.template.idle = now
		ops = append(ops, zfs.Set(rec.Dataset, record.LastUsedProperty, layout.FormatTime(now)))
	}
	r.journal.Append(ops)
}

// resolveCommits handles commits that were interrupted between promote and the removal of
// the active record. It finishes a commit whose record was written. It rolls back a commit without a
// record: it promotes the runtime, which is older than the template that is its origin.
// Only a commit of the runtime makes it a clone of a newer dataset.
func (r *recovery) resolveCommits() error {
	x := r.index
	committed := make(map[string]bool) // by ID of the active record
	for _, rec := range x.records {
		committed[rec.From] = rec.From != ""
	}
	for _, active := range x.sorted() {
		t := active.template
		if active.Info.Kind != snapshots.KindActive {
			continue
		}
		if committed[active.ID.String()] {
			x.unlinkRecord(active)
			r.journal.Append(active.Clear())
			x.discard(active.Dataset, t)
			continue
		}
		if t == nil || t.held || t.records > 0 || active.StandInFor != "" || r.createTXG[active.Dataset] >= r.createTXG[t.Dataset()] {
			continue
		}
		if err := r.pool.Apply(r.ctx, zfs.Promote(active.Dataset, t.Dataset())); err != nil {
			if errors.Is(err, zfs.ErrSuspended) || r.ctx.Err() != nil {
				return errkind.Wrap(fmt.Sprintf("roll back the commit of %q", active.Info.Name), err)
			}
			t.held = true // its clone, the active snapshot, remains usable
			log.G(r.ctx).WithError(err).WithField("snapshot", active.Info.Name).WithField("dataset", t.Dataset()).
				WithField("effect", "the active snapshot remains usable; the next start tries again").Warn("failed to roll back interrupted commit")
			continue
		}
		delete(x.templates, t.Dataset())
		active.template = t.parent
		r.partials = append(r.partials, t.Dataset())
		r.residue = append(r.residue, active.Dataset+"@"+layout.Extracted)
	}
	return nil
}

// rollBack rolls back commits that were interrupted before promote: it destroys the
// partials and the snapshots of the runtimes. What it cannot destroy becomes garbage or
// residue.
func (r *recovery) rollBack() error {
	left, err := r.pool.Destroy(r.ctx, layout.Extracted, r.partials)
	if err != nil {
		return errkind.Wrap("roll back an interrupted commit", err)
	}
	for dataset, err := range left {
		r.index.discard(dataset, nil)
		log.G(r.ctx).WithError(err).WithField("dataset", dataset).Warn("failed to destroy residue of interrupted commit")
	}
	for _, snapshot := range r.residue {
		if err := r.pool.DestroySnapshot(r.ctx, snapshot); err != nil {
			runtime, _, _ := strings.Cut(snapshot, "@")
			r.index.residue[runtime] = ""
			log.G(r.ctx).WithError(err).WithField("snapshot", snapshot).Warn("failed to destroy residue of interrupted commit")
		}
	}
	return nil
}

// skip logs that recovery does not use or change a dataset, and the reason.
func (r *recovery) skip(d zfs.Dataset, reason string) {
	log.G(r.ctx).WithField("dataset", d.Name).WithField("reason", reason).Warn("skipping dataset")
}
