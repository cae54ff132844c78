package report

import (
	"strconv"

	"github.com/zfstpl/zfstpl/integration/tools/bench/internal/result"
)

// waitsTable returns the medians of what each operation waits for, txgs and ZIL commits: a
// line for each operation, or "" if none was counted.
func waitsTable(s *result.Set) string {
	var all []row
	for _, o := range loaded {
		all = append(all, rows(s, TxgsPrefix+o.name)...)
	}
	names := present(all)
	t := table{text: 1, head: []string{"operation"}}
	for _, name := range names {
		t.head = append(t.head, contenderTitle(name))
	}
	for _, o := range loaded {
		zil := rows(s, ZILPrefix+o.name)
		for i, txgs := range rows(s, TxgsPrefix+o.name) {
			cells := []string{o.title}
			for _, name := range names {
				cell := "–"
				if m, ok := txgs.cells[name]; ok {
					cell = number(m.Median) + ", " + number(zil[i].cells[name].Median)
				}
				cells = append(cells, cell)
			}
			t.rows = append(t.rows, cells)
		}
	}
	if len(t.rows) == 0 {
		return ""
	}
	return t.String()
}

// number returns a median of counts, which may be half of an odd number.
func number(x float64) string { return strconv.FormatFloat(x, 'f', -1, 64) }
