package snapshotter

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
)

// template is an image layer, or a commit that is none. Its fields are guarded
// by the index's mutex, save those that never change.
type template struct {
	layout.Template
	parent *template // nil for the empty template

	records  int // committed and view records on it
	views    int // view records among them
	pins     int // operations that are about to use it
	standIns int // active records that stand for it
	from     provenance
	held     bool      // something on it could not be read: never destroy it
	idle     time.Time // when its last record went

	// Measured when first asked for; a template never changes.
	usage    *snapshots.Usage
	objects  uint64
	refers   uint64 // bytes
	bytes    uint64 // that come back when it is destroyed
	measured bool   // whether that is known of bytes; there are layers that hold nothing
}

// warm tells whether no record names the template and nothing is about to.
func (t *template) cached() bool {
	return t.records == 0 && t.pins == 0 && t.standIns == 0 && !t.held && !t.IsEmpty()
}

// trash is a dataset that waits to be destroyed.
type garbage struct {
	dataset string
	origin  *template // what it is a clone of; nil where that is not ours
	of      string    // the runtime that it is the half of, see dropStray; or the other way round
	since   time.Time
}

// index is what the pool holds, in memory. The mutex is held for moments only,
// never across a call to the pool.
type index struct {
	mu            sync.RWMutex
	seq           uint64
	records       map[string]*record   // by name or key
	byDataset     recordsByDataset     // the same records, by the dataset that each stands on
	hidden        map[string]bool      // names and keys that a Remove came for, see hide
	children      map[string]int       // records, and operations under way, by their parent's name
	templates     map[string]*template // by dataset, whole ones only
	garbage       map[string]*garbage  // by dataset
	stuck         map[string]*stuck    // datasets whose last destroy failed
	reservedNames map[string]bool      // names under storage that something unknown may have
	residue       map[string]string    // runtimes that may have an @extracted of a commit that failed, and what may be a clone of it or ""
	samples       map[string]sample    // usage of active snapshots, by dataset
	fillings      map[string]*filling  // what was unpacked into active snapshots, by dataset

	interrupts map[string]context.CancelCauseFunc // what a Remove ends, by key

	onGarbage func() // is called when something waits to be destroyed; it never waits
}

func newIndex() *index {
	return &index{
		records:       make(map[string]*record),
		byDataset:     make(recordsByDataset),
		hidden:        make(map[string]bool),
		children:      make(map[string]int),
		templates:     make(map[string]*template),
		garbage:       make(map[string]*garbage),
		stuck:         make(map[string]*stuck),
		reservedNames: make(map[string]bool),
		residue:       make(map[string]string),
		samples:       make(map[string]sample),
		fillings:      make(map[string]*filling),
		onGarbage:     func() {},

		interrupts: make(map[string]context.CancelCauseFunc),
	}
}

// next answers the sequence number of a new record.
func (x *index) next() uint64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.seq++
	return x.seq
}

// get answers the record of that name or key.
func (x *index) get(name string) (*record, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.getLocked(name)
}

func (x *index) getLocked(name string) (*record, error) {
	if r := x.records[name]; r != nil && !x.hidden[name] {
		return r, nil
	}
	return nil, fmt.Errorf("snapshot %q: %w", name, errdefs.ErrNotFound)
}

// taken reports whether a record has a name, which may be hidden.
func (x *index) taken(name string) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.records[name] != nil
}

// begin reserves what a new child of parent needs, so that neither the parent's
// record nor its template can go while the pool works. The caller holds the
// lock of key and calls the answered function when the operation has failed,
// or x.add when it has not.
func (x *index) begin(key, parent string, empty *template) (t *template, seq uint64, abandon func(), err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.records[key] != nil {
		return nil, 0, nil, fmt.Errorf("snapshot %q: %w", key, errdefs.ErrAlreadyExists)
	}
	t = empty
	if parent != "" {
		p, err := x.getLocked(parent)
		if err != nil {
			return nil, 0, nil, fmt.Errorf("parent of %q: %w", key, err)
		}
		if p.info.Kind != snapshots.KindCommitted {
			return nil, 0, nil, fmt.Errorf("parent %q of %q is not committed: %w", parent, key, errdefs.ErrInvalidArgument)
		}
		t = p.template
	}
	x.addChild(parent)
	t.pins++
	x.seq++
	return t, x.seq, func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.removeChild(parent)
		t.pins--
	}, nil
}

// addChild and disown count a child of parent. Both want the mutex held.
func (x *index) addChild(parent string) {
	if parent != "" {
		x.children[parent]++
	}
}

func (x *index) removeChild(parent string) {
	if parent == "" {
		return
	}
	if x.children[parent]--; x.children[parent] <= 0 {
		delete(x.children, parent)
	}
}

// add makes a record visible whose place begin reserved.
func (x *index) add(r *record, pinned *template) {
	x.mu.Lock()
	defer x.mu.Unlock()
	pinned.pins--
	if r.template != pinned {
		r.template.pins-- // the layer that it stands for, see reuse
	}
	x.insert(r)
	if r.info.Kind == snapshots.KindActive {
		// A clone has what its origin has: there is nothing to count yet.
		x.samples[r.dataset] = sample{counted: time.Now()}
	}
}

// recordsOn are records by the dataset that each stands on, and by their names.
type recordsByDataset map[string]map[string]*record

// linkRecord makes r the record of its name. It wants the mutex held.
func (x *index) linkRecord(r *record) {
	if old := x.records[r.info.Name]; old != nil {
		x.unlinkRecord(old)
	}
	x.records[r.info.Name] = r
	x.countStandIn(r, 1)
	if x.byDataset[r.dataset] == nil {
		x.byDataset[r.dataset] = make(map[string]*record)
	}
	x.byDataset[r.dataset][r.info.Name] = r
}

// unlinkRecord forgets the record r. It wants the mutex held.
func (x *index) unlinkRecord(r *record) {
	delete(x.records, r.info.Name)
	x.countStandIn(r, -1)
	if delete(x.byDataset[r.dataset], r.info.Name); len(x.byDataset[r.dataset]) == 0 {
		delete(x.byDataset, r.dataset)
	}
}

// insert wants the mutex held and the parent's child counted.
func (x *index) insert(r *record) {
	x.linkRecord(r)
	if r.info.Kind != snapshots.KindActive {
		r.template.records++
	}
	if r.info.Kind == snapshots.KindView {
		r.template.views++
	}
}

// drop takes a record away, and its claim on its parent with it.
func (x *index) drop(r *record) {
	x.unlinkRecord(r)
	delete(x.samples, r.dataset)
	delete(x.fillings, r.dataset)
	x.removeChild(r.info.Parent)
	if r.info.Kind != snapshots.KindActive {
		r.template.records--
	}
	if r.info.Kind == snapshots.KindView {
		r.template.views--
	}
}

// discard notes that a dataset waits to be destroyed. It wants the mutex held.
func (x *index) discard(dataset string, origin *template) {
	x.garbage[dataset] = &garbage{dataset: dataset, origin: origin, since: time.Now()}
	x.onGarbage()
}
