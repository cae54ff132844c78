package index

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
)

// Dump describes the records, templates and garbage, one in a line, sorted. A new index of
// the same pool has the same dump.
func (x *Index) Dump() []string {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var lines []string
	for name, r := range x.records {
		info, _ := json.Marshal(r.Info)
		lines = append(lines, fmt.Sprintf("record %q %s: seq %d target %q stand-in for %q in %s of %s, props %q, %s",
			name, r.ID, r.Seq, r.Target, r.StandInFor, r.Dataset, nameOf(r.Template), r.Props, info))
	}
	for name, t := range x.templates {
		line := fmt.Sprintf("template %s on %s from %v: %d records, %d pins, %d stand-ins, held %v",
			name, nameOf(t.Parent), t.From, t.Records, t.pins, t.standIns, t.Held)
		if t.Cached() && !t.IsOpaque() {
			line += ", idle since " + layout.FormatTime(t.Idle)
		}
		lines = append(lines, line)
	}
	for name, g := range x.garbage {
		lines = append(lines, fmt.Sprintf("garbage %s of %s", name, nameOf(g.origin)))
	}
	for name, n := range x.children {
		lines = append(lines, fmt.Sprintf("%q has %d children", name, n))
	}
	slices.Sort(lines)
	return lines
}

func nameOf(t *Template) string {
	if t == nil {
		return "nothing"
	}
	return t.Dataset()
}

// DumpTransient describes what a new index of the same pool lacks: removals and operations
// under way, and what is known of runtimes. The lines are sorted.
func (x *Index) DumpTransient() []string {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var lines []string
	for name := range x.hidden {
		lines = append(lines, fmt.Sprintf("hidden %q", name))
	}
	for name := range x.interrupts {
		lines = append(lines, fmt.Sprintf("interruptible %q", name))
	}
	for dataset := range x.fillings {
		lines = append(lines, "filling "+dataset)
	}
	for dataset := range x.unresolved {
		lines = append(lines, "unresolved "+dataset)
	}
	slices.Sort(lines)
	return lines
}

// Check returns an error if the two maps of records differ.
func (x *Index) Check() error {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var errs []error
	n := 0
	for dataset, on := range x.byDataset {
		if len(on) == 0 {
			errs = append(errs, fmt.Errorf("dataset %s has an empty list of records", dataset))
		}
		for name, r := range on {
			if n++; r.Dataset != dataset || x.records[name] != r {
				errs = append(errs, fmt.Errorf("record %q is on %s, but listed for %s", name, r.Dataset, dataset))
			}
		}
	}
	if n != len(x.records) {
		errs = append(errs, fmt.Errorf("%d records are listed by dataset, %d by name", n, len(x.records)))
	}
	return errors.Join(errs...)
}
