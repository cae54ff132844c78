package snapshotter

import (
	"slices"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
)

// The methods of this file build an index from a listing or a cleanup list, before other
// goroutines use it.

// addTemplate adds a template without records.
func (x *index) addTemplate(t *template) { x.templates[t.Dataset()] = t }

// reserveName prevents the creation of a template with a name that another dataset has.
func (x *index) reserveName(dataset string) { x.reservedNames[dataset] = true }

// addResidue records that a runtime has the @extracted of a failed commit.
func (x *index) addResidue(runtime string) { x.residue[runtime] = "" }

// addRecovered adds a record, and reports false if a record has its name. It does not count
// the record as a child of its parent, see linkParents.
func (x *index) addRecovered(r *entry) bool {
	x.seq = max(x.seq, r.Seq)
	if x.records[r.Info.Name] != nil {
		return false
	}
	x.insert(r)
	return true
}

// linkParents counts every record as a child of its parent. It returns the records whose
// parent is missing; these are then shown without a parent.
func (x *index) linkParents() (orphans []*entry) {
	for _, r := range x.sorted() {
		parent := x.records[r.Info.Parent]
		if r.Info.Parent != "" && (parent == nil || parent.Info.Kind != snapshots.KindCommitted) {
			r.Info.Parent, r.Lost = "", r.Info.Parent
			orphans = append(orphans, r)
		}
		x.addChild(r.Info.Parent)
	}
	return orphans
}

// completeCommit removes the active record of a commit whose record exists.
func (x *index) completeCommit(active *entry, now time.Time) {
	x.unlinkRecord(active)
	x.discard(active.Dataset, active.template, now)
}

// undoPromote records that the promote of a commit without a record was undone: the template
// is a partial, and the runtime is a clone of the template's parent again.
func (x *index) undoPromote(active *entry) {
	undone := *active
	delete(x.templates, active.template.Dataset())
	undone.template = active.template.parent
	x.linkRecord(&undone)
}

// removable is a dataset that a cleanup may destroy, as a cleanup list has it.
type removable struct {
	Dataset  string    `json:"dataset"`
	Origin   string    `json:"origin"` // the dataset of its origin
	Template bool      `json:"template,omitempty"`
	Idle     time.Time `json:"idle,omitzero"` // of a template: when its last record was removed
	Bytes    uint64    `json:"bytes,omitempty"`
}

// load fills the index from a list, in which parents follow their clones. It ignores names
// that are not of templates or runtimes; no snapshotter writes such names.
func (x *index) load(base layout.Base, list []removable, now time.Time) {
	for _, e := range slices.Backward(list) {
		origin := x.templates[e.Origin]
		name, isTemplate := base.ParseTemplate(e.Dataset)
		if _, isRuntime := base.ParseRuntime(e.Dataset); !isTemplate && !isRuntime {
			continue
		}
		if e.Template && isTemplate {
			x.templates[e.Dataset] = &template{Template: name, parent: origin, idle: e.Idle, sizes: sizes{bytes: e.Bytes, measured: e.Bytes > 0}}
		} else {
			x.discard(e.Dataset, origin, now)
		}
	}
}
