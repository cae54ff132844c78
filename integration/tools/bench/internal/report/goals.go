package report

import (
	"fmt"
	"slices"
	"strings"

	"github.com/zfstpl/zfstpl/integration/tools/bench/internal/result"
)

// A goal is a target that was set for several cases: it is met if each of them meets it.
type goal struct {
	// title names the goal. The operation's title does if it is empty.
	title     string
	operation string
	callers   int
	// clones and loads are the cases: each number of clones with each load.
	clones []int
	loads  []load
	// of is the contender that is judged, zfstpl if empty, and than the other one.
	of, than string
	// faster: at least so many times as fast as the other one. slower: at most so many
	// times its time. One of them is zero.
	faster, slower float64
	// p99 judges 99th percentiles and not medians.
	p99 bool
}

// A load is what else happens on the pool.
type load struct{ prefix, title string }

var (
	idle      = load{IdlePrefix, "idle"}
	busy      = load{BusyPrefix, "busy"}
	anyLoad   = []load{idle, busy}
	ownRun    = []load{{}}
	anyClones = []int{10, 500}
)

// leastForP99 is how many samples a 99th percentile has at least.
const leastForP99 = 100

var goals = slices.Concat(
	each([]string{Prepare, View}, goal{clones: anyClones, loads: anyLoad, slower: 1.15, than: LogOnly}),
	each([]string{Prepare, View}, goal{clones: anyClones, loads: anyLoad, faster: 0.85, than: OverlayZFS}),
	each([]string{Prepare, View}, goal{clones: []int{10}, loads: anyLoad, faster: 10, than: ZFSPlugin}),
	each([]string{Prepare, View}, goal{clones: anyClones, loads: anyLoad, of: Builtin, faster: 1.1, than: OverlayZFS}),
	[]goal{
		{operation: Prepare, title: "Prepare, 99th percentile", p99: true, clones: anyClones, loads: []load{busy}, slower: 1.5, than: OverlayZFS},
		{operation: Burst, title: "64 Prepares by 16 callers", callers: 16, clones: anyClones, loads: anyLoad, faster: 1, than: OverlayZFS},
		{operation: Commit, clones: anyClones, loads: anyLoad, of: Socket, slower: 1.15, than: Floor},
		{operation: ExtractSync, clones: anyClones, loads: anyLoad, faster: 1, than: OverlayZFS},
		{operation: FirstOutput, clones: []int{10}, loads: anyLoad, faster: 1, than: OverlayZFS},
		{operation: Import, clones: []int{0}, loads: ownRun, faster: 1.15, than: OverlayZFS},
	},
	each([]string{Usage, Mounts, Stat}, goal{clones: anyClones, loads: anyLoad, slower: 1.2, than: EmptyProxy}),
)

// each repeats a goal for several operations.
func each(operations []string, g goal) []goal {
	var all []goal
	for _, operation := range operations {
		g.operation = operation
		all = append(all, g)
	}
	return all
}

// The limits of what has grown since the older zfstpl that a run also measured.
const (
	growthLimit    = 4 << 20
	startSnapshots = 3000
)

func goalVerdicts(s *result.Set) []verdict {
	var all []verdict
	for _, g := range goals {
		all = append(all, g.judge(s))
	}
	start := goal{
		operation: Start, title: fmt.Sprintf("Start with %d snapshots", startSnapshots), clones: []int{startSnapshots},
		loads: ownRun, slower: 1, than: Before,
	}
	return append(all, judgeGrowth(s), start.judge(s))
}

func (g goal) judge(s *result.Set) verdict {
	v := verdict{What: g.what(), Target: g.text()}
	var parts []string
	missed, measured, all := 0, 0, 0
	for _, clones := range g.clones {
		for _, l := range g.loads {
			all++
			text, met, ok := g.judgeCase(s, clones, l)
			if ok {
				measured++
				if !met {
					missed++
				}
			}
			parts = append(parts, strings.TrimSpace(g.label(clones, l)+" "+text))
		}
	}
	v.Measured, v.Met = strings.Join(parts, ", "), metOf(missed, measured, all)
	if measured == 0 && all > 1 && !g.p99 {
		v.Measured = notMeasured
	}
	return v
}

// metOf returns what became of a goal of several cases.
func metOf(missed, measured, all int) string {
	switch {
	case missed > 0:
		return "**missed**"
	case measured == 0:
		return ""
	case measured < all:
		return "as far as measured"
	default:
		return "yes"
	}
}

// judgeCase returns the ratio in one case, in words, and whether it meets the target. ok is
// false if there is no ratio.
func (g goal) judgeCase(s *result.Set, clones int, l load) (text string, met, ok bool) {
	ours := result.Case{Operation: l.prefix + g.operation, Clones: clones, Callers: max(1, g.callers), On: g.judged()}
	theirs := ours
	theirs.On = g.than
	a, haveA := s.Summary(ours)
	b, haveB := s.Summary(theirs)
	if !haveA || !haveB || a.Median == 0 || b.Median == 0 {
		return notMeasured, false, false
	}
	x, y := a.Median, b.Median
	if g.p99 {
		if min(a.Count, b.Count) < leastForP99 {
			return "too few samples", false, false
		}
		x, y = a.P99, b.P99
	}
	if g.faster > 0 {
		return emphasised(times(y/x), y/x >= g.faster), y/x >= g.faster, true
	}
	return emphasised(times(x/y), x/y <= g.slower), x/y <= g.slower, true
}

// emphasised returns a ratio, in bold if it misses the target.
func emphasised(ratio string, met bool) string {
	if met {
		return ratio
	}
	return "**" + ratio + "**"
}

func (g goal) judged() string {
	if g.of == "" {
		return Native
	}
	return g.of
}

func (g goal) what() string {
	what := g.title
	if what == "" {
		what = operationTitle(g.operation)
	}
	if g.of != "" {
		what += ", " + contenderTitle(g.of)
	}
	return what
}

func (g goal) text() string {
	if g.faster > 0 {
		return fmt.Sprintf("at least %s as fast as %s", limit(g.faster), contenderTitle(g.than))
	}
	return fmt.Sprintf("at most %s the time of %s", limit(g.slower), contenderTitle(g.than))
}

// label names a case, if the goal has several of them.
func (g goal) label(clones int, l load) string {
	if len(g.clones)*len(g.loads) == 1 {
		return ""
	}
	return fmt.Sprintf("%d %s", clones, l.title)
}

// judgeGrowth judges how much more the daemon has in memory than the older one.
func judgeGrowth(s *result.Set) verdict {
	v := verdict{
		What:   fmt.Sprintf("Resident memory, %d snapshots", memorySnapshots),
		Target: fmt.Sprintf("at most %s more than %s", mebibytes(growthLimit), contenderTitle(Before)), Measured: notMeasured,
	}
	var grown []float64
	for _, operation := range []string{MemoryUsed, MemoryStarted} {
		c := result.Case{Operation: operation, Clones: memorySnapshots, Callers: 1, On: Native}
		now, haveNow := s.Summary(c)
		c.On = Before
		before, haveBefore := s.Summary(c)
		if haveNow && haveBefore {
			grown = append(grown, now.Median-before.Median)
		}
	}
	if len(grown) > 0 {
		most := slices.Max(grown)
		missed := 0
		if most > growthLimit {
			missed = 1
		}
		v.Measured, v.Met = mebibytes(most), metOf(missed, 1, 1)
	}
	return v
}
