package report

import "github.com/zfstpl/zfstpl/integration/tools/bench/internal/result"

// traceParts are the columns of the table of traces.
var traceParts = []struct{ prefix, title string }{
	{TraceTook, "took"},
	{TraceClient, "client"},
	{TraceContainerd, "containerd"},
	{TraceSnapshotter, "snapshotter's process"},
	{TraceRest, "rest"},
}

// traceTable returns where the time of each operation goes, the medians in ms: a line for each
// operation and contender, or "" if nothing was traced.
func traceTable(s *result.Set) string {
	t := table{text: 2, head: []string{"operation", ""}}
	for _, part := range traceParts {
		t.head = append(t.head, part.title)
	}
	for _, o := range loaded {
		for _, r := range rows(s, TraceTook+o.name) {
			for _, name := range present([]row{r}) {
				cells := []string{o.title, contenderTitle(name)}
				for _, part := range traceParts {
					cells = append(cells, traceCell(s, part.prefix+o.name, r.clones, name))
				}
				t.rows = append(t.rows, cells)
			}
		}
	}
	if len(t.rows) == 0 {
		return ""
	}
	return t.String()
}

func traceCell(s *result.Set, operation string, clones int, on string) string {
	m, ok := s.Summary(result.Case{Operation: operation, Clones: clones, Callers: 1, On: on})
	if !ok {
		return "–"
	}
	return milliseconds(m.Median)
}
