package snapshotter

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"github.com/zfstpl/zfstpl/snapshotter/internal/record"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
)

// entry is a containerd snapshot in the index. It is immutable; an update replaces it.
type entry struct {
	record.Record
	// template is the template that the snapshot shows or, of an active one, the origin.
	template *template
}

// template is an immutable file system: an image layer or an opaque commit. The index's
// mutex guards the fields that change.
type template struct {
	layout.Template
	parent *template // nil for the empty template

	records  int // committed and view records on it
	views    int // view records among them
	pins     int // operations that use it
	standIns int // active records of stand-ins that represent it
	from     record.Provenance
	held     bool      // has a problem, for example an unreadable record: never destroyed
	idle     time.Time // when its last record was removed

	// Measured on first use; a template never changes.
	usage    *snapshots.Usage
	objects  uint64
	refers   uint64 // bytes
	bytes    uint64 // that its destruction frees
	measured bool   // whether bytes is known; it is zero for an empty layer
}

// cached reports whether the template has no record and no user.
func (t *template) cached() bool {
	return t.records == 0 && t.pins == 0 && t.standIns == 0 && !t.held && !t.IsEmpty()
}

// garbage is a dataset that the next cleanup destroys.
type garbage struct {
	dataset string
	origin  *template // the template of which it is a clone; nil if there is none in the index
	runtime string    // of a partial: the runtime whose commit left it, see dropResidue
	since   time.Time
}

// index is the content of the pool, in memory. The mutex is never held during a call
// to the pool.
type index struct {
	mu            sync.RWMutex
	seq           uint64
	records       map[string]*entry    // by name or key
	byDataset     recordsByDataset     // the same records, by the dataset that holds each
	hidden        map[string]bool      // names and keys with a pending Remove, see hide
	children      map[string]int       // number of records and running operations, by their parent's name
	templates     map[string]*template // by dataset; without partials
	garbage       map[string]*garbage  // by dataset
	stuck         map[string]*stuck    // datasets that could not be destroyed
	reservedNames map[string]bool      // template names whose state in the pool is unknown
	residue       map[string]string    // runtimes that may have the @extracted of a failed commit, and its partial or ""
	samples       map[string]sample    // usage of active snapshots, by dataset
	fillings      map[string]*filling  // what was unpacked into runtimes, by dataset

	interrupts map[string]context.CancelCauseFunc // cancel the operations that a Remove interrupts, by key

	onGarbage func() // called when a dataset becomes garbage; must not block
}

func newIndex() *index {
	return &index{
		records:       make(map[string]*entry),
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

// next returns the sequence number of a new record.
func (x *index) next() uint64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.seq++
	return x.seq
}

// get returns the record of a name or key, or an error if there is none or it is hidden.
func (x *index) get(name string) (*entry, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.getLocked(name)
}

func (x *index) getLocked(name string) (*entry, error) {
	if r := x.records[name]; r != nil && !x.hidden[name] {
		return r, nil
	}
	return nil, fmt.Errorf("snapshot %q: %w", name, errdefs.ErrNotFound)
}

// template returns the template of a dataset, or nil.
func (x *index) template(dataset string) *template {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.templates[dataset]
}

// taken reports whether a record has a name. It counts hidden records.
func (x *index) taken(name string) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.records[name] != nil
}

// reserve prepares the creation of a child of parent. It counts the child and pins the
// parent's template, so that neither the parent's record nor the template is removed
// meanwhile. It returns the template and a sequence number. The caller holds the lock of
// key. It calls x.add if the operation succeeds, otherwise release.
func (x *index) reserve(key, parent string, empty *template) (t *template, seq uint64, release func(), err error) {
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
		if p.Info.Kind != snapshots.KindCommitted {
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

// addChild counts one child more of parent. The caller holds the mutex.
func (x *index) addChild(parent string) {
	if parent != "" {
		x.children[parent]++
	}
}

// removeChild counts one child less of parent. The caller holds the mutex.
func (x *index) removeChild(parent string) {
	if parent == "" {
		return
	}
	if x.children[parent]--; x.children[parent] <= 0 {
		delete(x.children, parent)
	}
}

// add adds the record for which reserve was called, and releases its pins.
func (x *index) add(r *entry, pinned *template) {
	x.mu.Lock()
	defer x.mu.Unlock()
	pinned.pins--
	if r.template != pinned {
		r.template.pins-- // the layer that it represents, see reuse
	}
	x.insert(r)
	if r.Info.Kind == snapshots.KindActive {
		// A new clone has the same objects as its origin: nothing to count yet.
		x.samples[r.Dataset] = sample{counted: time.Now()}
	}
}

// recordsByDataset holds records by the dataset that holds each, and by name.
type recordsByDataset map[string]map[string]*entry

// linkRecord makes r the record of its name. The caller holds the mutex.
func (x *index) linkRecord(r *entry) {
	if old := x.records[r.Info.Name]; old != nil {
		x.unlinkRecord(old)
	}
	x.records[r.Info.Name] = r
	x.countStandIn(r, 1)
	if x.byDataset[r.Dataset] == nil {
		x.byDataset[r.Dataset] = make(map[string]*entry)
	}
	x.byDataset[r.Dataset][r.Info.Name] = r
}

// unlinkRecord removes r from the maps of records. The caller holds the mutex.
func (x *index) unlinkRecord(r *entry) {
	delete(x.records, r.Info.Name)
	x.countStandIn(r, -1)
	if delete(x.byDataset[r.Dataset], r.Info.Name); len(x.byDataset[r.Dataset]) == 0 {
		delete(x.byDataset, r.Dataset)
	}
}

// insert adds a record. The caller holds the mutex and has called addChild for the parent.
func (x *index) insert(r *entry) {
	x.linkRecord(r)
	if r.Info.Kind != snapshots.KindActive {
		r.template.records++
	}
	if r.Info.Kind == snapshots.KindView {
		r.template.views++
	}
}

// drop removes a record and its reference to the parent. The caller holds the mutex.
func (x *index) drop(r *entry) {
	x.unlinkRecord(r)
	delete(x.samples, r.Dataset)
	delete(x.fillings, r.Dataset)
	x.removeChild(r.Info.Parent)
	if r.Info.Kind != snapshots.KindActive {
		r.template.records--
	}
	if r.Info.Kind == snapshots.KindView {
		r.template.views--
	}
}

// discard makes a dataset garbage. The caller holds the mutex.
func (x *index) discard(dataset string, origin *template) {
	x.garbage[dataset] = &garbage{dataset: dataset, origin: origin, since: time.Now()}
	x.onGarbage()
}
