package index

import (
	"slices"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
)

// The methods of this file build an index from a listing or a cleanup list, before other
// goroutines use it.

// AddTemplate adds a template without records.
func (x *Index) AddTemplate(t *Template) { x.templates[t.Dataset()] = t }

// ReserveName prevents the creation of a template with a name that another dataset has.
func (x *Index) ReserveName(dataset string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.reservedNames[dataset] = true
}

// AddRecovered adds a record, and reports false if a record has its name. It does not count
// the record as a child of its parent, see LinkParents.
func (x *Index) AddRecovered(r *Entry) bool {
	x.seq = max(x.seq, r.Seq)
	if x.records[r.Info.Name] != nil {
		return false
	}
	x.insert(r)
	return true
}

// LinkParents counts every record as a child of its parent. It returns the records whose
// parent is missing; these are then shown without a parent.
func (x *Index) LinkParents() (orphans []*Entry) {
	for _, r := range x.Sorted() {
		parent := x.records[r.Info.Parent]
		if r.Info.Parent != "" && (parent == nil || parent.Info.Kind != snapshots.KindCommitted) {
			r.Info.Parent, r.Lost = "", r.Info.Parent
			orphans = append(orphans, r)
		}
		x.addChild(r.Info.Parent)
	}
	return orphans
}

// CompleteCommit removes the active record of a commit whose record exists.
func (x *Index) CompleteCommit(active *Entry, now time.Time) {
	x.unlinkRecord(active)
	x.discard(active.Dataset, active.Template, now)
}

// UndoPromote records that the promote of a commit without a record was undone: the template
// is a partial, and the runtime is a clone of the template's parent again.
func (x *Index) UndoPromote(active *Entry) {
	undone := *active
	delete(x.templates, active.Template.Dataset())
	undone.Template = active.Template.Parent
	x.linkRecord(&undone)
}

// Removable is a dataset that a cleanup may destroy, as a cleanup list has it.
type Removable struct {
	Dataset  string    `json:"dataset"`
	Origin   string    `json:"origin"` // the dataset of its origin
	Template bool      `json:"template,omitempty"`
	Idle     time.Time `json:"idle,omitzero"` // of a template: when its last record was removed
	Bytes    uint64    `json:"bytes,omitempty"`
}

// Load fills the index from a list, in which parents follow their clones. It ignores names
// that are not of templates or runtimes; no snapshotter writes such names.
func (x *Index) Load(base layout.Base, list []Removable, now time.Time) {
	for _, e := range slices.Backward(list) {
		origin := x.templates[e.Origin]
		name, isTemplate := base.ParseTemplate(e.Dataset)
		if _, isRuntime := base.ParseRuntime(e.Dataset); !isTemplate && !isRuntime {
			continue
		}
		if e.Template && isTemplate {
			x.templates[e.Dataset] = &Template{Template: name, Parent: origin, Idle: e.Idle, sizes: Sizes{bytes: e.Bytes, measured: e.Bytes > 0}}
		} else {
			x.discard(e.Dataset, origin, now)
		}
	}
}
