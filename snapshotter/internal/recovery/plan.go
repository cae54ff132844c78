package recovery

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"

	"github.com/zfstpl/zfstpl/snapshotter/internal/index"
	"github.com/zfstpl/zfstpl/snapshotter/internal/record"
	"github.com/zfstpl/zfstpl/snapshotter/internal/state"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// Plan is the index of a base and what a start changes in the pool. Nothing in it
// destroys a dataset with a record.
type Plan struct {
	Index *index.Index

	// mountpoints are the templates and runtimes with a mountpoint where ZFS would mount
	// them writable.
	mountpoints []zfs.Dataset
	// promotes are the active records whose runtimes a commit made clones of a template
	// without a record. The commit is rolled back: the runtime is promoted.
	promotes []*index.Entry
	// partials are the datasets under storage without @extracted. An interrupted commit or
	// setup.Init leaves them.
	partials []string
	// residue are the snapshots of runtimes that an interrupted commit took. A partial
	// is a clone of such a snapshot, so the partials are destroyed first.
	residue []string
	// temporary are the snapshots of killed comparisons.
	temporary []string
	// Removals and Repairs are entries for the journal.
	Removals, Repairs [][]zfs.Op

	skipped []skippedDataset
	ignored []string       // templates whose provenance contradicts their chain ID
	orphans []*index.Entry // records whose parent is missing
}

// skippedDataset is a dataset that recovery does not use or change.
type skippedDataset struct{ dataset, reason string }

// NewPlan returns the plan for a listing. It is a pure function of its arguments.
func NewPlan(base layout.Base, list []zfs.Dataset, now time.Time) (*Plan, error) {
	list = slices.SortedFunc(slices.Values(list), func(a, b zfs.Dataset) int { return cmp.Compare(a.CreateTXG, b.CreateTXG) })
	p := &planner{Plan: Plan{Index: index.New()}, base: base, now: now, createTXG: make(map[string]uint64)}
	for _, d := range list {
		p.createTXG[d.Name] = d.CreateTXG
		p.checkMountpoint(d)
	}
	p.templates(list)
	if p.Index.Template(base.Empty().Dataset()) == nil {
		return nil, fmt.Errorf("%s is missing: run 'zfstpl init %s', which completes a base", base.Empty().Snapshot(), base)
	}
	p.runtimes(list)
	p.indexRecords()
	p.resolveCommits()
	p.orphans = p.Index.LinkParents()
	p.clearPartialRecords(list)
	p.findTemporarySnapshots(list)
	return &p.Plan, nil
}

// planner makes a plan.
type planner struct {
	Plan
	base      layout.Base
	now       time.Time
	createTXG map[string]uint64 // the txg that created each dataset
	records   []*index.Entry
}

// checkMountpoint plans to reset the mountpoint of a template or runtime. setup.Fix runs
// before, so that no mountpoint is inherited from storage or runtime.
func (p *planner) checkMountpoint(d zfs.Dataset) {
	_, isTemplate := p.base.ParseTemplate(d.Name)
	_, isRuntime := p.base.ParseRuntime(d.Name)
	if (isTemplate || isRuntime) && strings.HasPrefix(d.Mountpoint, "/") {
		p.mountpoints = append(p.mountpoints, d)
	}
}

// findTemporarySnapshots plans to destroy the snapshots that killed comparisons left.
func (p *planner) findTemporarySnapshots(list []zfs.Dataset) {
	for _, d := range list {
		for _, short := range d.Snapshots {
			if strings.HasPrefix(short, zfs.TemporaryPrefix) {
				p.temporary = append(p.temporary, d.Name+"@"+short)
			}
		}
	}
}

// clearPartialRecords plans the removal of partial records. It leaves garbage out.
func (p *planner) clearPartialRecords(list []zfs.Dataset) {
	for _, d := range list {
		_, isRuntime := p.base.ParseRuntime(d.Name)
		if ops := record.ClearPartial(d); len(ops) > 0 && !p.Index.IsGarbage(d.Name) && (isRuntime || p.Index.Template(d.Name) != nil) {
			p.Removals = append(p.Removals, ops)
		}
	}
}

// templates adds all templates to the index and then links each to its parent.
func (p *planner) templates(list []zfs.Dataset) {
	for _, d := range list {
		if d.Name == p.base.String() || d.Name == p.base.Storage() || d.Name == p.base.Runtime() {
			continue
		}
		st := state.Classify(p.base, d)
		switch {
		case st.Problem != "":
			p.skip(d, st.Problem)
		case st.State == state.Foreign:
			p.skip(d, "not created by zfstpl")
		}
		if name, ok := p.base.ParseTemplate(d.Name); ok {
			p.template(name, d, st)
		}
	}
	for _, d := range list {
		t := p.Index.Template(d.Name)
		if t == nil || t.IsEmpty() {
			continue
		}
		if t.Parent = p.origin(d); t.Parent == nil {
			t.Held = true
		}
		if t.From.IsKnown() && !t.Matches(t.From.DiffID) {
			p.ignored = append(p.ignored, d.Name)
			t.From = record.Provenance{}
		}
	}
}

// template adds one template to the index, or a partial to p.partials.
func (p *planner) template(name layout.Template, d zfs.Dataset, st state.Classification) {
	if !d.HasSnapshot(layout.Extracted) {
		if st.State == state.Partial {
			p.partials = append(p.partials, d.Name)
		} else {
			p.Index.ReserveName(d.Name)
		}
		return
	}
	// A template with a problem is never destroyed: an unreadable record may name it.
	t := &index.Template{Template: name, Idle: record.LastUsed(d), From: record.ReadProvenance(d), Held: st.Problem != ""}
	p.Index.AddTemplate(t)
	for _, rec := range st.Records {
		if rec.Info.Kind != snapshots.KindActive {
			p.records = append(p.records, &index.Entry{Record: *rec, Template: t})
		}
	}
}

// runtimes adds all runtimes without a problem to the index.
func (p *planner) runtimes(list []zfs.Dataset) {
	for _, d := range list {
		if _, ok := p.base.ParseRuntime(d.Name); !ok {
			continue
		}
		st := state.Classify(p.base, d)
		if st.Problem != "" {
			continue // templates has skipped it
		}
		if d.HasSnapshot(layout.Extracted) {
			p.residue = append(p.residue, d.Name+"@"+layout.Extracted)
		}
		switch {
		case st.State == state.Used:
			p.active(d, st.Records)
		case p.origin(d) == nil:
			p.skip(d, "its origin is not a template of this base")
		default:
			p.Index.AddGarbage(d.Name, p.origin(d), p.now)
		}
	}
}

// active takes over the record of a runtime. An interrupted update leaves two records;
// the newer one is valid and the older one is removed.
func (p *planner) active(d zfs.Dataset, records []*record.Record) {
	newest := slices.MaxFunc(records, func(a, b *record.Record) int { return cmp.Compare(a.Seq, b.Seq) })
	p.records = append(p.records, &index.Entry{Record: *newest, Template: p.origin(d)})
	for _, old := range records {
		if old != newest {
			p.Repairs = append(p.Repairs, old.Clear())
		}
	}
}

// origin returns the template of which a dataset is a clone, or nil.
func (p *planner) origin(d zfs.Dataset) *index.Template {
	name, ok := p.base.ParseExtracted(d.Origin)
	if !ok {
		return nil
	}
	return p.Index.Template(name.Dataset())
}

// indexRecords adds the records to the index. Of two records with the same name the newer
// one is valid: the older one was removed, and a crash came before its removal was written.
func (p *planner) indexRecords() {
	slices.SortFunc(p.records, func(a, b *index.Entry) int { return cmp.Compare(b.Seq, a.Seq) })
	for _, r := range p.records {
		if !p.Index.AddRecovered(r) {
			p.supersede(r)
		}
	}
}

// supersede plans the removal of a record that a newer one replaces.
func (p *planner) supersede(r *index.Entry) {
	ops := r.Clear()
	if r.Info.Kind == snapshots.KindActive {
		p.Index.AddGarbage(r.Dataset, r.Template, p.now)
	} else {
		r.Template.Idle = p.now
		ops = append(ops, zfs.Set(r.Dataset, record.LastUsedProperty, layout.FormatTime(p.now)))
	}
	p.Removals = append(p.Removals, ops)
}

// resolveCommits plans what to do about commits that were interrupted between the promote and
// the removal of the active record. If the committed record exists, it completes the commit.
// Otherwise it plans to promote the runtime, which undoes the commit.
//
// Such a commit is recognized by the age of the runtime. A clone is younger than its origin. A
// commit creates a template and makes it the origin of the runtime, which is older. No other
// operation does that.
func (p *planner) resolveCommits() {
	records := p.Index.Sorted()
	committed := make(map[string]bool) // by ID of the active record
	for _, r := range records {
		committed[r.From] = r.From != ""
	}
	for _, active := range records {
		t := active.Template
		switch {
		case active.Info.Kind != snapshots.KindActive:
		case committed[active.ID.String()]:
			p.Index.CompleteCommit(active, p.now)
			p.Removals = append(p.Removals, active.Clear())
		case t != nil && !t.Held && t.Records == 0 && active.StandInFor == "" && p.createTXG[active.Dataset] < p.createTXG[t.Dataset()]:
			p.promotes = append(p.promotes, active)
		}
	}
}

func (p *planner) skip(d zfs.Dataset, reason string) {
	p.skipped = append(p.skipped, skippedDataset{d.Name, reason})
}
