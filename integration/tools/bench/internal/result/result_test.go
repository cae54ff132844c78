package result

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSummarize(t *testing.T) {
	hundred := make([]float64, 100)
	for i := range hundred {
		hundred[i] = float64(100 - i)
	}
	for _, c := range []struct {
		values []float64
		want   Summary
	}{
		{[]float64{7}, Summary{1, 7, 7}},
		{[]float64{9, 1}, Summary{2, 5, 9}},
		{[]float64{3, 1, 2}, Summary{3, 2, 3}},
		{hundred, Summary{100, 50.5, 99}},
	} {
		assert.Equal(t, c.want, Summarize(c.values))
	}
	assert.Equal(t, 100.0, hundred[0], "the samples keep their order")
}

func TestSampleIsALineOfTheBenchmarkFormat(t *testing.T) {
	s := Sample{Case{"Prepare", 500, 1, "zfstpl-native"}, 123456789, Nanoseconds}
	line := "BenchmarkPrepare/clones=500/callers=1/on=zfstpl-native 1 123456789 ns/op"
	assert.Equal(t, line, s.String())
	again, err := parseSample(line)
	require.NoError(t, err)
	assert.Equal(t, s, again)
}

func TestReadTakesFactsAndSamplesAndLeavesOutTheRest(t *testing.T) {
	s, err := Read(strings.NewReader(`zfs: 2.4.4-1
pkg: a: b
testbed: booting
Some text: that is no fact
BenchmarkView/clones=10/callers=1/on=x 1 10 ns/op
BenchmarkView/clones=10/callers=1/on=x 1 20 ns/op

BenchmarkResident/clones=1000/callers=1/on=x 1 4096 bytes
`))
	require.NoError(t, err)
	assert.Equal(t, "2.4.4-1", s.Fact("zfs"))
	assert.Equal(t, "a: b", s.Fact("pkg"))
	assert.Empty(t, s.Fact("none"))
	view := Case{"View", 10, 1, "x"}
	got, ok := s.Summary(view)
	assert.True(t, ok)
	assert.Equal(t, Summary{2, 15, 20}, got)
	_, ok = s.Summary(Case{"View", 11, 1, "x"})
	assert.False(t, ok)
	assert.ElementsMatch(t, []Case{view, {"Resident", 1000, 1, "x"}}, s.Cases())
}

func TestMergeKeepsWhatIsSaidOfEachPart(t *testing.T) {
	s, err := Read(strings.NewReader("zfs: 2.4.4\nzfstpl: a\nBenchmarkView/clones=10/callers=1/on=x 1 10 ns/op\n"))
	require.NoError(t, err)
	more, err := Read(strings.NewReader("zfs: 2.4.4\nzfstpl: b\nremark: busy\nBenchmarkView/clones=10/callers=1/on=x 1 20 ns/op\n"))
	require.NoError(t, err)
	s.Merge(more, "layers")
	assert.Equal(t, []Fact{{"zfs", "2.4.4"}, {"zfstpl", "a"}, {"layers-zfstpl", "b"}, {"remark", "busy"}}, s.Facts)
	got, _ := s.Summary(Case{"View", 10, 1, "x"})
	assert.Equal(t, 2, got.Count)
}

func TestReadRefusesABrokenSample(t *testing.T) {
	for _, line := range []string{
		"BenchmarkView/clones=10 2 10 ns/op",
		"BenchmarkView/clones=x/callers=1/on=x 1 10 ns/op",
		"BenchmarkView/size=1/on=x 1 10 ns/op",
		"BenchmarkView/on=x 1 ten ns/op",
		"BenchmarkView/on=x 1 10",
	} {
		_, err := Read(strings.NewReader(line))
		assert.ErrorContains(t, err, line)
	}
}

func TestFactsAreOneLineEach(t *testing.T) {
	var b strings.Builder
	require.NoError(t, WriteFacts(&b, []Fact{{"cpu", "two\nlines"}, {"zfs", "2.4"}}))
	assert.Equal(t, "cpu: two lines\nzfs: 2.4\n", b.String())
}
