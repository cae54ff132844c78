package report

import (
	"fmt"
	"slices"

	"github.com/zfstpl/zfstpl/integration/tools/bench/internal/result"
)

// loaded are the operations of the run that compares an idle pool with a busy one, in the
// order of its tables.
var loaded = slices.Concat(operations, extractions)

var extractions = []struct{ name, title string }{
	{FirstOutput, "ctr run --rm, until the container's first output"},
	{Extract, "Apply and Commit of a layer"},
	{ExtractSync, "Apply and Commit of a layer, with sync_fs"},
}

// loadTable returns an operation's medians and 99th percentiles in ms on an idle pool and on
// a busy one: a line for each contender.
func loadTable(s *result.Set, operation string) string {
	var columns []map[string]result.Summary
	var all []row
	t := table{text: 1, head: []string{""}}
	for _, clones := range clonesOf(s, operation) {
		for _, l := range anyLoad {
			column := make(map[string]result.Summary)
			for _, r := range rows(s, l.prefix+operation) {
				if r.clones == clones {
					all = append(all, r)
					column = r.cells
				}
			}
			columns = append(columns, column)
			t.head = append(t.head, fmt.Sprintf("%d clones, %s", clones, l.title))
		}
	}
	for _, name := range present(all) {
		cells := []string{contenderTitle(name)}
		for _, column := range columns {
			m, ok := column[name]
			cells = append(cells, loadCell(m, ok))
		}
		t.rows = append(t.rows, cells)
	}
	return t.String()
}

// loadCell has the number of samples if there are too few for a 99th percentile.
func loadCell(m result.Summary, measured bool) string {
	switch {
	case !measured:
		return "–"
	case m.Count < leastForP99:
		return fmt.Sprintf("%s / %s (%d)", milliseconds(m.Median), milliseconds(m.P99), m.Count)
	default:
		return milliseconds(m.Median) + " / " + milliseconds(m.P99)
	}
}

// clonesOf returns the numbers of clones that an operation was measured with, ascending.
func clonesOf(s *result.Set, operation string) []int {
	var counts []int
	for _, l := range anyLoad {
		for _, r := range rows(s, l.prefix+operation) {
			counts = append(counts, r.clones)
		}
	}
	slices.Sort(counts)
	return slices.Compact(counts)
}

// loadRatios are the comparisons that README repeats: how many times as fast as a contender
// another one is.
var loadRatios = []struct{ of, than string }{
	{Native, ZFSPlugin}, {Native, OverlayZFS}, {Builtin, OverlayZFS},
}

// loadRatioTable returns how many times as fast zfstpl is as others, on an idle pool and on a
// busy one: a line for each operation and number of clones.
func loadRatioTable(s *result.Set) string {
	t := table{text: 1, head: []string{"idle / busy", "clones"}}
	for _, c := range loadRatios {
		t.head = append(t.head, fmt.Sprintf("%s beside %s", contenderTitle(c.of), contenderTitle(c.than)))
	}
	for _, o := range loaded {
		for _, clones := range clonesOf(s, o.name) {
			cells := []string{o.title, fmt.Sprint(clones)}
			for _, c := range loadRatios {
				cells = append(cells, loadRatio(s, o.name, clones, IdlePrefix, c.of, c.than)+" / "+loadRatio(s, o.name, clones, BusyPrefix, c.of, c.than))
			}
			t.rows = append(t.rows, cells)
		}
	}
	if len(t.rows) == 0 {
		return ""
	}
	return t.String()
}

func loadRatio(s *result.Set, operation string, clones int, prefix, of, than string) string {
	for _, r := range rows(s, prefix+operation) {
		ours, haveOurs := r.cells[of]
		theirs, haveTheirs := r.cells[than]
		if r.clones == clones && haveOurs && haveTheirs && ours.Median > 0 {
			return times(theirs.Median / ours.Median)
		}
	}
	return "–"
}
