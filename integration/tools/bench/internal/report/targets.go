package report

import (
	"fmt"
	"slices"

	"github.com/zfstpl/zfstpl/integration/tools/bench/internal/result"
)

// A target is a ratio of two medians that was set before it was measured.
type target struct {
	operation string
	clones    int
	callers   int
	// faster: so many times as fast as another contender, at least. slower: so
	// many times the time of it, at most. One of them is zero.
	faster, slower float64
	than           string
	// of is the contender that is judged, zfstpl where empty; thanClones are
	// the other side's clones where they differ.
	of         string
	thanClones int
}

var targets = slices.Concat(
	[]target{
		{operation: Prepare, clones: 10, faster: 4, than: ZFSPlugin},
		{operation: Prepare, clones: 500, faster: 15, than: ZFSPlugin},
		{operation: View, clones: 10, faster: 4, than: ZFSPlugin},
		{operation: View, clones: 500, faster: 15, than: ZFSPlugin},
	},
	atEach(target{operation: Commit, faster: 3, than: ZFSPlugin}),
	atEach(target{operation: Usage, faster: 8, than: ZFSPlugin}),
	atEach(target{operation: Mounts, faster: 8, than: ZFSPlugin}),
	[]target{
		{operation: Burst, clones: 10, callers: 16, faster: 10, than: ZFSPlugin},
		{operation: Burst, clones: 500, callers: 16, faster: 35, than: ZFSPlugin},
		{operation: RemoveAll, clones: 500, faster: 10, than: ZFSPlugin},
	},
	atEach(target{operation: Prepare, slower: 2.5, than: OverlayZFS}),
	atEach(target{operation: Burst, callers: 16, slower: 1.2, than: OverlayZFS}),
	[]target{
		{operation: RemoveAll, clones: 500, slower: 1.3, than: OverlayZFS},
		{operation: Container, clones: 10, slower: 1.15, than: OverlayZFS},
		{operation: ScalePrefix + Prepare, clones: 3000, slower: 1.2, than: Native, thanClones: 10},
	},
	atEach(target{operation: Prepare, slower: 1.3, than: Floor, of: Socket}),
	[]target{
		{operation: LayerFew, clones: 50_000, faster: 100, than: ZFSPlugin},
		{operation: LayerFew, clones: 50_000, faster: 50, than: OverlayZFS},
		{operation: LayerFew, clones: 250_000, slower: 1.5, than: Native, thanClones: 5_000},
		{operation: LayerLarge, clones: 5_000, faster: 2.5, than: ZFSPlugin},
		{operation: LayerMany, clones: 5_000, faster: 1, than: OverlayZFS},
		{operation: LayerRenamed, clones: 20_000, faster: 1, than: OverlayZFS},
		{operation: Import, slower: 1, than: ZFSPlugin},
		{operation: Cleaning, clones: 1000, slower: 2, than: Still, of: Socket},
	},
)

// Memory that a daemon may have with 1000 snapshots, and at most while it makes
// layers.
const (
	memoryLimit     = 30 << 20
	memorySnapshots = 1000
	layersLimit     = 64 << 20
)

// atEach repeats a target that was set for any number of clones.
func atEach(t target) []target {
	few, many := t, t
	few.clones, many.clones = 10, 500
	return []target{few, many}
}

// A verdict is what became of a target.
type verdict struct {
	What, Target, Measured, Met string
}

func verdicts(s *result.Set) []verdict {
	var all []verdict
	for _, t := range targets {
		all = append(all, t.judge(s))
	}
	return append(all, judgeMemory(s), judgeLayersMemory(s))
}

const notMeasured = "not measured"

func (t target) judge(s *result.Set) verdict {
	v := verdict{What: t.what(), Target: t.text(), Measured: notMeasured}
	ours, theirs := t.cases()
	a, haveA := s.Summary(ours)
	b, haveB := s.Summary(theirs)
	if !haveA || !haveB || a.Median == 0 || b.Median == 0 {
		return v
	}
	if t.faster > 0 {
		ratio := b.Median / a.Median
		v.Measured = times(ratio) + " as fast"
		v.Met = yes(ratio >= t.faster)
		return v
	}
	ratio := a.Median / b.Median
	v.Measured = times(ratio)
	v.Met = yes(ratio <= t.slower)
	return v
}

// cases are the two sides of the ratio.
func (t target) cases() (ours, theirs result.Case) {
	ours = result.Case{Operation: t.operation, Clones: t.clones, Callers: max(1, t.callers), On: t.of}
	if ours.On == "" {
		ours.On = Native
	}
	theirs = ours
	theirs.On = t.than
	if t.thanClones > 0 {
		theirs.Clones = t.thanClones
	}
	return ours, theirs
}

func (t target) what() string {
	what := operationTitle(t.operation)
	if t.clones > 0 {
		what += fmt.Sprintf(", %d %s", t.clones, thing(t.operation))
	}
	if t.callers > 1 {
		what += fmt.Sprintf(", %d callers", t.callers)
	}
	if t.of != "" {
		what += ", " + contenderTitle(t.of)
	}
	return what
}

func (t target) text() string {
	switch {
	case t.faster > 0:
		return fmt.Sprintf("at least %s as fast as %s", limit(t.faster), contenderTitle(t.than))
	case t.thanClones > 0:
		return fmt.Sprintf("at most %s of that with %d %s", limit(t.slower), t.thanClones, thing(t.operation))
	default:
		return fmt.Sprintf("at most %s the time of %s", limit(t.slower), contenderTitle(t.than))
	}
}

func judgeMemory(s *result.Set) verdict {
	v := verdict{
		What:   fmt.Sprintf("Resident memory, %d snapshots", memorySnapshots),
		Target: fmt.Sprintf("at most %s", mebibytes(memoryLimit)), Measured: notMeasured,
	}
	worst := 0.0
	for _, operation := range []string{MemoryUsed, MemoryStarted} {
		m, _ := s.Summary(result.Case{Operation: operation, Clones: memorySnapshots, Callers: 1, On: Native})
		worst = max(worst, m.Median)
	}
	if worst > 0 {
		v.Measured, v.Met = mebibytes(worst), yes(worst <= memoryLimit)
	}
	return v
}

func judgeLayersMemory(s *result.Set) verdict {
	v := verdict{What: "Resident memory while making layers, at most", Target: "at most " + mebibytes(layersLimit), Measured: notMeasured}
	if peak, ok := layersPeak(s); ok {
		v.Measured, v.Met = mebibytes(peak), yes(peak <= layersLimit)
	}
	return v
}

// layersPeak is what the daemon had in memory at most while it made layers.
func layersPeak(s *result.Set) (peak float64, measured bool) {
	for _, c := range s.Cases() {
		if c.Operation == MemoryLayers+PeakSuffix {
			if m, ok := s.Summary(c); ok {
				peak, measured = max(peak, m.Median), true
			}
		}
	}
	return peak, measured
}

func yes(met bool) string {
	if met {
		return "yes"
	}
	return "**no**"
}
