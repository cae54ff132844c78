package report

import (
	"fmt"
	"slices"
	"strings"

	"github.com/zfstpl/zfstpl/integration/tools/bench/internal/result"
)

// A row is a case with the contenders that were measured in it.
type row struct {
	clones, callers int
	cells           map[string]result.Summary
}

// rows are an operation's cases.
func rows(s *result.Set, operation string) []row {
	var all []row
	for _, c := range s.Cases() {
		if c.Operation != operation {
			continue
		}
		i := slices.IndexFunc(all, func(r row) bool { return r.clones == c.Clones && r.callers == c.Callers })
		if i < 0 {
			i = len(all)
			all = append(all, row{c.Clones, c.Callers, make(map[string]result.Summary)})
		}
		all[i].cells[c.On], _ = s.Summary(c)
	}
	slices.SortFunc(all, func(a, b row) int {
		if a.clones != b.clones {
			return a.clones - b.clones
		}
		return a.callers - b.callers
	})
	return all
}

// present are the contenders that any of the rows has.
func present(all []row) []string {
	var found []string
	for _, c := range contenders {
		if slices.ContainsFunc(all, func(r row) bool { _, ok := r.cells[c.name]; return ok }) {
			found = append(found, c.name)
		}
	}
	return found
}

// timeTable is a Markdown table of an operation's medians and 99th percentiles
// in ms.
func timeTable(s *result.Set, operation string) string {
	all := rows(s, operation)
	if len(all) == 0 {
		return ""
	}
	names := present(all)
	t := table{head: []string{"clones"}}
	for _, name := range names {
		t.head = append(t.head, contenderTitle(name))
	}
	for _, r := range all {
		cells := []string{fmt.Sprint(r.clones)}
		for _, name := range names {
			cell := "–"
			if m, ok := r.cells[name]; ok {
				cell = milliseconds(m.Median) + " / " + milliseconds(m.P99)
			}
			cells = append(cells, cell)
		}
		t.rows = append(t.rows, cells)
	}
	return t.String()
}

// ratioTable sets zfstpl against the others, whose time is divided by its own:
// above 1, zfstpl is faster.
func ratioTable(s *result.Set) string {
	against := []string{ZFSPlugin, OverlayZFS, OverlayExt4, Btrfs, OverlayBtrfs, Command, Floor}
	var all []row
	for _, o := range operations {
		all = append(all, rows(s, o.name)...)
	}
	has := present(all)
	against = slices.DeleteFunc(against, func(name string) bool { return !slices.Contains(has, name) })
	t := table{text: 1, head: []string{"operation", "clones"}}
	for _, name := range against {
		t.head = append(t.head, contenderTitle(name))
	}
	for _, o := range operations {
		for _, r := range rows(s, o.name) {
			ours, ok := r.cells[Native]
			if !ok {
				continue
			}
			cells := []string{o.title, fmt.Sprint(r.clones)}
			for _, name := range against {
				cell := "–"
				if theirs, ok := r.cells[name]; ok {
					cell = times(theirs.Median / ours.Median)
				}
				cells = append(cells, cell)
			}
			t.rows = append(t.rows, cells)
		}
	}
	return t.String()
}

// scaleTable sets the medians with few clones beside those with many, in ms.
func scaleTable(s *result.Set) string {
	t := table{text: 2, head: []string{"operation", "by"}}
	var counts []int
	for _, r := range rows(s, ScalePrefix+Prepare) {
		counts = append(counts, r.clones)
		t.head = append(t.head, fmt.Sprintf("%d clones", r.clones))
	}
	if len(counts) < 2 {
		return ""
	}
	t.head = append(t.head, "last to first")
	for _, o := range operations {
		for _, name := range present(rows(s, ScalePrefix+o.name)) {
			cells := []string{o.title, contenderTitle(name)}
			var medians []float64
			for _, clones := range counts {
				m, _ := s.Summary(result.Case{Operation: ScalePrefix + o.name, Clones: clones, Callers: 1, On: name})
				medians = append(medians, m.Median)
				cells = append(cells, milliseconds(m.Median))
			}
			t.rows = append(t.rows, append(cells, times(medians[len(medians)-1]/medians[0])))
		}
	}
	return t.String()
}

// heldTable returns the medians in ms with held mounts and without, and the ratio of each
// to that with held mounts.
func heldTable(s *result.Set) string {
	t := table{text: 1, head: []string{"operation"}}
	var names []string
	for _, o := range held {
		for _, name := range present(rows(s, HeldPrefix+o.name)) {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	for _, name := range names {
		t.head = append(t.head, contenderTitle(name))
	}
	for _, o := range held {
		for _, r := range rows(s, HeldPrefix+o.name) {
			ours, ok := r.cells[Native]
			if !ok {
				continue
			}
			cells := []string{o.title}
			for _, name := range names {
				cell := "–"
				if m, ok := r.cells[name]; ok {
					cell = milliseconds(m.Median)
					if name != Native {
						cell += ", " + times(m.Median/ours.Median)
					}
				}
				cells = append(cells, cell)
			}
			t.rows = append(t.rows, cells)
		}
	}
	return t.String()
}

// layerTable sets the times to make layers beside each other: the median, and
// how many times zfstpl's that is.
func layerTable(s *result.Set) string {
	var all []row
	for _, o := range layers {
		all = append(all, rows(s, o.name)...)
	}
	names := present(all)
	t := table{text: 1, head: []string{"layer", "files in the image"}}
	for _, name := range names {
		t.head = append(t.head, contenderTitle(name))
	}
	for _, o := range layers {
		for _, r := range rows(s, o.name) {
			cells := []string{o.title, "–"}
			if r.clones > 0 {
				cells[1] = fmt.Sprint(r.clones)
			}
			for _, name := range names {
				cell := "–"
				if m, ok := r.cells[name]; ok {
					cell = milliseconds(m.Median)
					if ours, ok := r.cells[Native]; ok && name != Native {
						cell += ", " + times(m.Median/ours.Median)
					}
				}
				cells = append(cells, cell)
			}
			t.rows = append(t.rows, cells)
		}
	}
	return t.String()
}

// memoryTable is what the daemons had in memory.
func memoryTable(s *result.Set) string {
	t := table{text: 2, head: []string{"daemon", "when", "snapshots", "resident", "peak"}}
	for _, o := range []struct{ name, title string }{
		{MemoryUsed, "after making them"}, {MemoryStarted, "after a start"},
	} {
		for _, r := range rows(s, o.name) {
			for _, name := range present([]row{r}) {
				peak, _ := s.Summary(result.Case{Operation: o.name + PeakSuffix, Clones: r.clones, Callers: r.callers, On: name})
				t.rows = append(t.rows, []string{
					contenderTitle(name), o.title, fmt.Sprint(r.clones), mebibytes(r.cells[name].Median), mebibytes(peak.Median),
				})
			}
		}
	}
	return t.String()
}

// importTable returns the time of an import, in seconds, and its ratio to that of zfstpl, or ""
// if none was measured.
func importTable(s *result.Set) string {
	all := rows(s, Import)
	if len(all) == 0 {
		return ""
	}
	t := table{text: 1, head: []string{"snapshotter", "seconds", "ratio"}}
	ours := all[0].cells[Native].Median
	for _, name := range present(all) {
		m := all[0].cells[name]
		t.rows = append(t.rows, []string{contenderTitle(name), three(m.Median / 1e9), times(m.Median / ours)})
	}
	return t.String()
}

// samplesOf returns how many samples the cells of an operation have.
func samplesOf(s *result.Set, operation string) string {
	least, most := 0, 0
	for _, r := range rows(s, operation) {
		for _, m := range r.cells {
			if least == 0 || m.Count < least {
				least = m.Count
			}
			most = max(most, m.Count)
		}
	}
	if least == most {
		return fmt.Sprint(most)
	}
	return fmt.Sprintf("%d to %d", least, most)
}

// A table is Markdown's, the first columns, those of text, flush left and the
// others right.
type table struct {
	text int
	head []string
	rows [][]string
}

func (t table) String() string {
	if len(t.rows) == 0 {
		return ""
	}
	var b strings.Builder
	line := func(cells []string) { fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | ")) }
	line(t.head)
	var rule []string
	for i := range t.head {
		if i < t.text {
			rule = append(rule, "---")
		} else {
			rule = append(rule, "---:")
		}
	}
	line(rule)
	for _, r := range t.rows {
		line(r)
	}
	return b.String()
}
