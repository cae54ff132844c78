package state

import (
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/snapshots"

	"github.com/zfstpl/zfstpl/snapshotter/internal/record"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// State is the state of a dataset under a base.
type State string

// The states of a dataset under a base.
const (
	Used    State = "used"    // has a record
	Cached  State = "cached"  // a template without records
	Garbage State = "garbage" // the next cleanup destroys it
	Partial State = "partial" // the remains of an interrupted commit, which the next start destroys
	Foreign State = "foreign" // not created by zfstpl, or changed by another program
)

// Classification describes one dataset under a base, from its listing.
type Classification struct {
	State   State
	Records []*record.Record // the readable ones
	// Problem describes what is wrong with a dataset that has a name of a template or
	// runtime, or is "". A dataset with a problem is never destroyed, like a foreign one.
	Problem string
}

// Classify returns the state of a dataset under a base. It is a pure function. Recovery,
// Inspect and the check before a dataset of a cleanup list is destroyed use it. It is not
// called for the base, storage and runtime.
//
// It sees one dataset only. A commit that was interrupted between promote and its record
// changed two datasets, and only recovery combines them.
func Classify(base layout.Base, d zfs.Dataset) Classification {
	template, isTemplate := base.ParseTemplate(d.Name)
	_, isRuntime := base.ParseRuntime(d.Name)
	if !isTemplate && !isRuntime {
		return Classification{State: Foreign}
	}
	records, err := record.Read(d)
	st := Classification{Records: records}
	if err != nil {
		st.Problem = err.Error()
	}
	hasRecord := len(records) > 0 || err != nil // readable or not
	if isTemplate {
		st.template(base, d, template, hasRecord)
	} else {
		st.runtime(base, d, hasRecord)
	}
	return st
}

// template sets the state of a dataset with the name of a template.
func (st *Classification) template(base layout.Base, d zfs.Dataset, name layout.Template, hasRecord bool) {
	switch {
	case !d.HasSnapshot(layout.Extracted) && hasRecord:
		// No interrupted commit leaves this state: it writes the record after @extracted.
		st.State = Used
		st.add(fmt.Sprintf("it has records, but its snapshot @%s was destroyed; if its files were not changed since, run 'zfs snapshot %s@%s' and restart the daemon",
			layout.Extracted, d.Name, layout.Extracted))
		return
	case !d.HasSnapshot(layout.Extracted):
		st.State = Partial
		return
	case hasRecord || name.IsEmpty():
		st.State = Used
	case name.IsOpaque():
		st.State = Garbage // no pull can reuse it
	default:
		st.State = Cached
	}
	for _, r := range st.Records {
		if r.Info.Kind == snapshots.KindActive {
			st.add(fmt.Sprintf("record %s on a template is of an active snapshot", r.ID))
		}
	}
	if _, ok := base.ParseExtracted(d.Origin); !ok && !name.IsEmpty() {
		st.add(fmt.Sprintf("its origin %q is not a template", d.Origin))
		if !hasRecord {
			st.State = Foreign
		}
	}
}

// runtime sets the state of a dataset with the name of a runtime.
func (st *Classification) runtime(base layout.Base, d zfs.Dataset, hasRecord bool) {
	_, cloned := base.ParseExtracted(d.Origin)
	switch {
	case hasRecord:
		st.State = Used
		if st.Problem == "" && !sameActive(st.Records) {
			st.add("a runtime must have the record of one active snapshot only")
		}
	case cloned:
		// Removed, committed, or created by an operation that did not write its record.
		st.State = Garbage
	default:
		st.State = Foreign
		st.add("it has no record and is not a clone of a template")
	}
}

// add adds a problem.
func (st *Classification) add(problem string) {
	st.Problem = strings.TrimPrefix(st.Problem+"; "+problem, "; ")
}

// sameActive reports whether all records are of one active snapshot.
func sameActive(records []*record.Record) bool {
	return !slices.ContainsFunc(records, func(r *record.Record) bool {
		return r.Info.Kind != snapshots.KindActive || r.Info.Name != records[0].Info.Name
	})
}

// WhyKeep returns the reason why a listed dataset must not be destroyed, or "".
func WhyKeep(base layout.Base, found []zfs.Dataset) string {
	if len(found) != 1 {
		return "it has child datasets"
	}
	st := Classify(base, found[0])
	switch {
	case len(st.Records) > 0:
		return fmt.Sprintf("it has the record of %q", st.Records[0].Info.Name)
	case st.Problem != "":
		return st.Problem
	case st.State == Foreign, st.State == Used:
		return "it is " + string(st.State)
	}
	return ""
}

// ForeignSnapshots returns the full names of a dataset's foreign snapshots, sorted.
func ForeignSnapshots(d zfs.Dataset) []string {
	var names []string
	for _, name := range d.Snapshots {
		if name != layout.Extracted && !strings.HasPrefix(name, zfs.TemporaryPrefix) {
			names = append(names, d.Name+"@"+name)
		}
	}
	slices.Sort(names)
	return names
}
