package report

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/tools/bench/internal/result"
)

// set returns a set of one sample for each case: operation, clones, callers, contender and ms.
func set(t *testing.T, samples ...string) *result.Set {
	t.Helper()
	var b strings.Builder
	for _, sample := range samples {
		var operation, on string
		var clones, callers int
		var ms float64
		_, err := fmt.Sscan(sample, &operation, &clones, &callers, &on, &ms)
		require.NoError(t, err)
		fmt.Fprintf(&b, "Benchmark%s/clones=%d/callers=%d/on=%s 1 %.0f ns/op\n", operation, clones, callers, on, ms*1e6)
	}
	s, err := result.Read(strings.NewReader(b.String()))
	require.NoError(t, err)
	return s
}

// verdictOf returns the verdict of the goal with a name and a target.
func verdictOf(t *testing.T, s *result.Set, what, target string) verdict {
	t.Helper()
	for _, v := range goalVerdicts(s) {
		if v.What == what && v.Target == target {
			return v
		}
	}
	require.Fail(t, "no such goal", "%s: %s", what, target)
	return verdict{}
}

func TestAGoalIsMetIfEachCaseMeetsIt(t *testing.T) {
	const logOnly = "at most 1.15× the time of log only"
	all := []string{
		"IdlePrepare 10 1 zfstpl-native 110", "IdlePrepare 10 1 log-only 100",
		"BusyPrepare 10 1 zfstpl-native 230", "BusyPrepare 10 1 log-only 200",
		"IdlePrepare 500 1 zfstpl-native 100", "IdlePrepare 500 1 log-only 100",
	}
	v := verdictOf(t, set(t, all...), "Prepare", logOnly)
	assert.Equal(t, "10 idle 1.10×, 10 busy 1.15×, 500 idle 1.00×, 500 busy not measured", v.Measured)
	assert.Equal(t, "as far as measured", v.Met)

	v = verdictOf(t, set(t, append(all, "BusyPrepare 500 1 zfstpl-native 100", "BusyPrepare 500 1 log-only 100")...), "Prepare", logOnly)
	assert.Equal(t, "yes", v.Met)

	v = verdictOf(t, set(t, append(all, "BusyPrepare 500 1 zfstpl-native 300", "BusyPrepare 500 1 log-only 100")...), "Prepare", logOnly)
	assert.Equal(t, "10 idle 1.10×, 10 busy 1.15×, 500 idle 1.00×, 500 busy **3.00×**", v.Measured)
	assert.Equal(t, "**missed**", v.Met)

	v = verdictOf(t, set(t, all...), "View", logOnly)
	assert.Equal(t, verdict{"View", logOnly, notMeasured, ""}, v)
}

func TestAGoalOfSpeedIsTheOtherContendersTimeDividedByOurs(t *testing.T) {
	s := set(t, "IdlePrepare64 10 16 zfstpl-native 2000", "IdlePrepare64 10 16 overlayfs-zfs 1500",
		"Import 0 1 zfstpl-native 100", "Import 0 1 overlayfs-zfs 120",
		"IdleCommit 10 1 zfstpl-socket 115", "IdleCommit 10 1 floor 100",
		"BusyExtractSync 10 1 zfstpl-native 50", "BusyExtractSync 10 1 overlayfs-zfs 100")
	v := verdictOf(t, s, "64 Prepares by 16 callers", "at least 1× as fast as overlayfs on ZFS")
	assert.Contains(t, v.Measured, "10 idle **0.750×**")
	assert.Equal(t, "**missed**", v.Met)
	v = verdictOf(t, s, "Import of the demo's image", "at least 1.15× as fast as overlayfs on ZFS")
	assert.Equal(t, [2]string{"1.20×", "yes"}, [2]string{v.Measured, v.Met})
	v = verdictOf(t, s, "Commit, zfstpl, own socket", "at most 1.15× the time of the floor")
	assert.Contains(t, v.Measured, "10 idle 1.15×")
	v = verdictOf(t, s, "Apply and Commit of a layer, with sync_fs", "at least 1× as fast as overlayfs on ZFS")
	assert.Contains(t, v.Measured, "10 busy 2.00×")
}

func TestA99thPercentileNeedsAHundredSamplesOfBoth(t *testing.T) {
	const what, target = "Prepare, 99th percentile", "at most 1.5× the time of overlayfs on ZFS"
	var samples []string
	for i := range 99 {
		samples = append(samples, fmt.Sprintf("BusyPrepare 10 1 zfstpl-native %d", i+1), fmt.Sprintf("BusyPrepare 10 1 overlayfs-zfs %d", i+1))
	}
	v := verdictOf(t, set(t, samples...), what, target)
	assert.Equal(t, "10 busy too few samples, 500 busy not measured", v.Measured)
	assert.Empty(t, v.Met)
	samples = append(samples, "BusyPrepare 10 1 zfstpl-native 5000", "BusyPrepare 10 1 overlayfs-zfs 0.5")
	v = verdictOf(t, set(t, samples...), what, target)
	// The 99th of 100: 99 of ours, 98 of theirs.
	assert.Equal(t, "10 busy 1.01×, 500 busy not measured", v.Measured)
}

func TestGrowthIsComparedWithTheOlderProgramOfTheSameRun(t *testing.T) {
	memory := func(operation, on string, mib int) string {
		return fmt.Sprintf("Benchmark%s/clones=1000/callers=1/on=%s 1 %d bytes\n", operation, on, mib<<20)
	}
	for grown, met := range map[int]string{4: "yes", 5: "**missed**"} {
		s, err := result.Read(strings.NewReader(memory("MemoryUsed", Native, 25) + memory("MemoryUsed", Before, 25) +
			memory("MemoryStarted", Native, 20+grown) + memory("MemoryStarted", Before, 20)))
		require.NoError(t, err)
		v := judgeGrowth(s)
		assert.Equal(t, fmt.Sprintf("%d.00 MiB", grown), v.Measured)
		assert.Equal(t, met, v.Met)
	}
	assert.Empty(t, judgeGrowth(set(t)).Met)

	v := verdictOf(t, set(t, "Start 3000 1 zfstpl-native 101", "Start 3000 1 zfstpl-before 100"),
		"Start with 3000 snapshots", "at most 1× the time of zfstpl before, own socket")
	assert.Equal(t, [2]string{"**1.01×**", "**missed**"}, [2]string{v.Measured, v.Met})
}

func TestLoadTableHasAColumnForEachLoad(t *testing.T) {
	samples := []string{"BusyPrepare 10 1 log-only 40", "IdlePrepare 500 1 overlayfs-zfs 20"}
	for i := range 100 {
		samples = append(samples, fmt.Sprintf("IdlePrepare 10 1 zfstpl-native %d", 100+i))
	}
	assert.Equal(t, `|  | 10 clones, idle | 10 clones, busy | 500 clones, idle | 500 clones, busy |
| --- | ---: | ---: | ---: | ---: |
| zfstpl | 150 / 198 | – | – | – |
| overlayfs on ZFS | – | – | 20.0 / 20.0 (1) | – |
| log only | – | 40.0 / 40.0 (1) | – | – |
`, loadTable(set(t, samples...), Prepare))
	assert.Empty(t, loadTable(set(t), Prepare))
}

func TestDocumentHasMissedGoals(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, Document(&b, set(t, "IdlePrepare 10 1 zfstpl-native 300", "IdlePrepare 10 1 log-only 100", "BusyExtractSync 10 1 zfstpl-native 50")))
	for _, want := range []string{
		"0 of 1 measured targets are met",
		"| Prepare | at most 1.15× the time of log only | 10 idle **3.00×**, 10 busy not measured, 500 idle not measured, 500 busy not measured | **missed** |",
		"## Idle and busy pool", "### Prepare, idle and busy\n", "### Apply and Commit of a layer, with sync_fs, idle and busy\n", "Earlier targets",
	} {
		assert.Contains(t, b.String(), want)
	}
	assert.NotContains(t, b.String(), "### Prepare\n")
}
