package snapshotter

import (
	"fmt"
	"strings"

	"github.com/containerd/containerd/v2/core/snapshots"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// State says why a dataset is there.
type State string

// The states of a dataset under a base.
const (
	StateUsed    State = "used"    // a record names it
	StateCached  State = "warm"    // a template that no record names
	StateGarbage State = "trash"   // waits to be destroyed
	StatePartial State = "partial" // the remains of a crash, which the next start takes back
	StateForeign State = "foreign" // not made by zfstpl, or not as zfstpl makes it
)

// classification is what a listing says of one dataset under a base.
type classification struct {
	state   State
	records []*record // those that can be read
	// problem says what is wrong with a dataset that has a name of ours, "" where nothing
	// is. What has a problem is left alone, as is what is foreign: it is not destroyed.
	problem string
}

// classify is the one place that decides what a dataset under a base is, storage and
// runtime excepted. It is pure. Recovery, inspections and the check before a dataset is
// destroyed from a list all act on it.
//
// It sees no other dataset. A commit that a crash cut off between promote and its record
// shows in two, and only recovery puts the two together.
func classify(base layout.Base, d zfs.Dataset) classification {
	_, isTemplate := base.ParseTemplate(d.Name)
	_, isRuntime := base.ParseRuntime(d.Name)
	if !isTemplate && !isRuntime {
		return classification{state: StateForeign}
	}
	records, err := readRecords(d)
	st := classification{records: records}
	if err != nil {
		st.problem = err.Error()
	}
	if isTemplate {
		st.template(base, d)
	} else {
		st.runtime(base, d)
	}
	return st
}

func (st *classification) template(base layout.Base, d zfs.Dataset) {
	name, _ := base.ParseTemplate(d.Name)
	named := hasRecord(d)
	switch {
	case !d.HasSnapshot(layout.Extracted) && named:
		// No commit leaves that: its record comes behind @extracted.
		st.state = StateUsed
		st.add(fmt.Sprintf("it carries records, and its snapshot @%s was destroyed; if nothing was written into it since, 'zfs snapshot %s@%s' and another start bring it back",
			layout.Extracted, d.Name, layout.Extracted))
		return
	case !d.HasSnapshot(layout.Extracted):
		st.state = StatePartial
		return
	case named || name.IsEmpty():
		st.state = StateUsed
	case name.IsOpaque():
		st.state = StateGarbage // nothing can ask for it again
	default:
		st.state = StateCached
	}
	for _, r := range st.records {
		if r.info.Kind == snapshots.KindActive {
			st.add(fmt.Sprintf("record %s is of an active snapshot and stands on a template", r.id))
		}
	}
	if _, ok := base.ParseExtracted(d.Origin); !ok && !name.IsEmpty() {
		st.add(fmt.Sprintf("its origin %q is not a template", d.Origin))
		if !named {
			st.state = StateForeign
		}
	}
}

func (st *classification) runtime(base layout.Base, d zfs.Dataset) {
	_, marked := d.Props[propGarbage]
	_, cloned := base.ParseExtracted(d.Origin)
	switch {
	case hasRecord(d):
		// With a mark beside it too: a commit was taken back, and the mark was to go.
		st.state = StateUsed
		if st.problem == "" && !sameActive(st.records) {
			st.add("a runtime carries the record of one active snapshot and nothing else")
		}
	case marked, cloned:
		// Without a mark a crash came before its record was written, or before a commit
		// that is done marked it.
		st.state = StateGarbage
	default:
		st.state = StateForeign
		st.add("it has no record and is no clone of a template")
	}
}

func (st *classification) add(problem string) {
	st.problem = strings.TrimPrefix(st.problem+"; "+problem, "; ")
}
