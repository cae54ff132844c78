package index

import (
	"context"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"

	"github.com/zfstpl/zfstpl/snapshotter/internal/record"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// Entry is a containerd snapshot in the index. It is immutable; an update replaces it.
type Entry struct {
	record.Record
	// Template is the template that the snapshot shows or, of an active one, the origin.
	Template *Template
}

// Template is an immutable file system: an image layer or an opaque commit. The index's
// mutex guards the fields that change.
type Template struct {
	layout.Template
	Parent *Template // nil for the empty template

	Records  int // committed and view records on it
	views    int // view records among them
	pins     int // operations that use it
	standIns int // active records of stand-ins that represent it
	From     record.Provenance
	Held     bool      // has a problem, for example an unreadable record: never destroyed
	Idle     time.Time // when its last record was removed

	sizes Sizes
}

// Sizes has the sizes of a template. Each is measured on first use, because a template never
// changes.
type Sizes struct {
	usage    *snapshots.Usage
	Objects  uint64
	Refers   uint64 // bytes
	bytes    uint64 // that its destruction frees
	measured bool   // whether bytes is known; it is zero for an empty layer
}

// Writer takes ops that remove a record from the pool. The index calls it under its mutex, so
// that no cleanup sees the change before: it must not block and not call the index.
type Writer func(ops []zfs.Op)

// garbage is a dataset that the next cleanup destroys.
type garbage struct {
	dataset string
	origin  *Template // the template of which it is a clone; nil if there is none in the index
	runtime string    // of a partial: the runtime whose commit left it, see dropUnresolved
	since   time.Time
}

// Index is the content of the pool, in memory. The mutex is never held during a call
// to the pool.
type Index struct {
	mu            sync.RWMutex
	seq           uint64
	records       map[string]*Entry    // by name or key
	byDataset     recordsByDataset     // the same records, by the dataset that holds each
	hidden        map[string]bool      // names and keys with a pending Remove, see Hide
	children      map[string]int       // number of records and running operations, by their parent's name
	templates     map[string]*Template // by dataset; without partials
	garbage       map[string]*garbage  // by dataset
	ready         []Ready
	stuck         map[string]*stuck     // datasets that could not be destroyed
	reservedNames map[string]bool       // template names whose state in the pool is unknown
	unresolved    map[string]Unresolved // commits whose outcome is not known, by runtime
	samples       map[string]Sample     // usage of active snapshots, by dataset
	fillings      map[string]*filling   // what was unpacked into runtimes, by dataset

	interrupts map[string]context.CancelCauseFunc // cancel the operations that a Remove interrupts, by key

	OnGarbage func() // called when a dataset becomes garbage; must not block
}

// New returns an empty index.
func New() *Index {
	return &Index{
		records:       make(map[string]*Entry),
		byDataset:     make(recordsByDataset),
		hidden:        make(map[string]bool),
		children:      make(map[string]int),
		templates:     make(map[string]*Template),
		garbage:       make(map[string]*garbage),
		stuck:         make(map[string]*stuck),
		reservedNames: make(map[string]bool),
		unresolved:    make(map[string]Unresolved),
		samples:       make(map[string]Sample),
		fillings:      make(map[string]*filling),
		OnGarbage:     func() {},

		interrupts: make(map[string]context.CancelCauseFunc),
	}
}

// recordsByDataset holds records by the dataset that holds each, and by name.
type recordsByDataset map[string]map[string]*Entry
