package snapshotter

import (
	"context"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"

	"github.com/zfstpl/zfstpl/snapshotter/internal/record"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
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

	sizes
}

// sizes has the sizes of a template. Each is measured on first use, because a template never
// changes.
type sizes struct {
	usage    *snapshots.Usage
	objects  uint64
	refers   uint64 // bytes
	bytes    uint64 // that its destruction frees
	measured bool   // whether bytes is known; it is zero for an empty layer
}

// writer takes ops that remove a record from the pool. The index calls it under its mutex, so
// that no cleanup sees the change before: it must not block and not call the index.
type writer func(ops []zfs.Op)

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

// recordsByDataset holds records by the dataset that holds each, and by name.
type recordsByDataset map[string]map[string]*entry
