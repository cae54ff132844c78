package report

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/tools/bench/internal/result"
)

const measured = `machine: emulated (QEMU, TCG)
plan: full
BenchmarkPrepare/clones=10/callers=1/on=zfstpl-native 1 100000000 ns/op
BenchmarkPrepare/clones=10/callers=1/on=zfstpl-native 1 120000000 ns/op
BenchmarkScalePrepare/clones=10/callers=1/on=zfstpl-native 1 110000000 ns/op
BenchmarkScalePrepare/clones=3000/callers=1/on=zfstpl-native 1 165000000 ns/op
BenchmarkPrepare/clones=10/callers=1/on=zfs-plugin 1 550000000 ns/op
BenchmarkPrepare/clones=500/callers=1/on=zfs-plugin 1 1250000000 ns/op
BenchmarkPrepare/clones=10/callers=1/on=zfstpl-socket 1 13000000 ns/op
BenchmarkPrepare/clones=10/callers=1/on=floor 1 10000000 ns/op
BenchmarkPrepare64/clones=10/callers=16/on=zfstpl-native 1 12000000 ns/op
BenchmarkPrepare64/clones=10/callers=16/on=overlayfs-zfs 1 10000000 ns/op
BenchmarkHeldContainer/clones=10/callers=1/on=zfstpl-native 1 2000000000 ns/op
BenchmarkHeldContainer/clones=10/callers=1/on=zfstpl-native 1 4000000000 ns/op
BenchmarkHeldContainer/clones=10/callers=1/on=zfstpl-zfs-mounts 1 3300000000 ns/op
BenchmarkHeldContainer/clones=10/callers=1/on=overlayfs-zfs 1 2400000000 ns/op
BenchmarkHeldMount/clones=10/callers=1/on=zfstpl-native 1 10000000 ns/op
BenchmarkHeldMount/clones=10/callers=1/on=zfstpl-zfs-mounts 1 40000000 ns/op
BenchmarkMemoryUsed/clones=1000/callers=1/on=zfstpl-native 1 10485760 bytes
BenchmarkMemoryUsedPeak/clones=1000/callers=1/on=zfstpl-native 1 20971520 bytes
BenchmarkMemoryStarted/clones=1000/callers=1/on=zfstpl-native 1 41943040 bytes
`

func read(t *testing.T) *result.Set {
	t.Helper()
	return readText(t, measured)
}

func readText(t *testing.T, text string) *result.Set {
	t.Helper()
	s, err := result.Read(strings.NewReader(text))
	require.NoError(t, err)
	return s
}

func TestVerdicts(t *testing.T) {
	got := map[string]verdict{}
	for _, v := range verdicts(read(t)) {
		got[v.What+": "+v.Target] = v
	}
	for what, want := range map[string][2]string{
		"Prepare, 10 clones: at least 4× as fast as containerd's zfs plugin":                   {"5.00× as fast", "yes"},
		"Prepare, 500 clones: at least 15× as fast as containerd's zfs plugin":                 {notMeasured, ""},
		"Prepare, 3000 clones: at most 1.2× of that with 10 clones":                            {"1.50×", "**no**"},
		"Prepare, 10 clones, zfstpl, own socket: at most 1.3× the time of the floor":           {"1.30×", "yes"},
		"64 Prepares, 10 clones, 16 callers: at most 1.2× the time of overlayfs on ZFS":        {"1.20×", "yes"},
		"64 Prepares, 10 clones, 16 callers: at least 10× as fast as containerd's zfs plugin":  {notMeasured, ""},
		"Resident memory, 1000 snapshots: at most 30.0 MiB":                                    {"40.0 MiB", "**no**"},
		"Remove all, until freed, 500 clones: at least 10× as fast as containerd's zfs plugin": {notMeasured, ""},
		"Mounts, 500 clones: at least 8× as fast as containerd's zfs plugin":                   {notMeasured, ""},
		"ctr run --rm, 10 clones: at most 1.15× the time of overlayfs on ZFS":                  {notMeasured, ""},
		"64 Prepares, 500 clones, 16 callers: at least 35× as fast as containerd's zfs plugin": {notMeasured, ""},
		"Prepare, 500 clones, zfstpl, own socket: at most 1.3× the time of the floor":          {notMeasured, ""},
		"Remove all, until freed, 500 clones: at most 1.3× the time of overlayfs on ZFS":       {notMeasured, ""},
		"64 Prepares, 500 clones, 16 callers: at most 1.2× the time of overlayfs on ZFS":       {notMeasured, ""},
		"Prepare, 500 clones: at most 2.5× the time of overlayfs on ZFS":                       {notMeasured, ""},
	} {
		v, ok := got[what]
		assert.True(t, ok, what)
		assert.Equal(t, want, [2]string{v.Measured, v.Met}, what)
	}
}

func TestTimeTable(t *testing.T) {
	assert.Equal(t, `| clones | zfstpl | containerd's zfs plugin | zfstpl, own socket | the floor |
| ---: | ---: | ---: | ---: | ---: |
| 10 | 110 / 120 | 550 / 550 | 13.0 / 13.0 | 10.0 / 10.0 |
| 500 | – | 1250 / 1250 | – | – |
`, timeTable(read(t), Prepare))
	assert.Empty(t, timeTable(read(t), View))
}

func TestRatioTable(t *testing.T) {
	assert.Equal(t, `| operation | clones | containerd's zfs plugin | overlayfs on ZFS | the floor |
| --- | ---: | ---: | ---: | ---: |
| Prepare | 10 | 5.00× | – | 0.0909× |
| 64 Prepares | 10 | – | 0.833× | – |
`, ratioTable(read(t)))
}

func TestScaleTable(t *testing.T) {
	assert.Equal(t, `| operation | by | 10 clones | 3000 clones | last to first |
| --- | --- | ---: | ---: | ---: |
| Prepare | zfstpl | 110 | 165 | 1.50× |
`, scaleTable(read(t)))
}

func TestHeldTableHasRatiosToHeldMounts(t *testing.T) {
	assert.Equal(t, `| operation | zfstpl | zfstpl, `+"`mounts = \"zfs\"`"+` | overlayfs on ZFS |
| --- | ---: | ---: | ---: |
| ctr run --rm | 3000 | 3300, 1.10× | 2400, 0.800× |
| mount and unmount by the client | 10.0 | 40.0, 4.00× | – |
`, heldTable(read(t)))
	assert.NotContains(t, ratioTable(read(t)), "ctr run")
}

func TestMemoryTable(t *testing.T) {
	assert.Equal(t, `| daemon | when | snapshots | resident | peak |
| --- | --- | ---: | ---: | ---: |
| zfstpl | after making them | 1000 | 10.0 MiB | 20.0 MiB |
| zfstpl | after a start | 1000 | 40.0 MiB | 0 MiB |
`, memoryTable(read(t)))
}

func TestNumbersHaveThreeDigits(t *testing.T) {
	for x, want := range map[float64]string{0: "0", 0.01234: "0.0123", 1.5: "1.50", 12.34: "12.3", 123.4: "123", 12345: "12345"} {
		assert.Equal(t, want, three(x))
	}
	assert.Equal(t, "4.00×", times(4))
	assert.Equal(t, "4×", limit(4))
	assert.Equal(t, "1.15×", limit(1.15))
}

func TestDocumentNamesEverythingThatWasMeasured(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, Document(&b, read(t)))
	text := b.String()
	for _, want := range []string{
		"The machine was emulated", "](prepare.svg)", "### Prepare\n", "### 64 Prepares\n", "## Few clones and many", "## Held mounts", "## Memory", "| plan | full |",
		"3 of the 5 measured targets are met",
	} {
		assert.Contains(t, text, want)
	}
	for _, unwanted := range []string{"### View", "Start of the daemon", "quick run", "<no value>"} {
		assert.NotContains(t, text, unwanted)
	}
}

func TestPlotIsADrawingOfEveryContender(t *testing.T) {
	var b bytes.Buffer
	drawn, err := Plot(&b, read(t), Prepare)
	require.NoError(t, err)
	require.True(t, drawn)
	circles := 0
	for d := xml.NewDecoder(&b); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		start, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		for _, a := range start.Attr {
			assert.NotContains(t, a.Value, "NaN")
			assert.NotContains(t, a.Value, "Inf")
		}
		if start.Name.Local == "circle" {
			circles++
		}
	}
	assert.Equal(t, 5, circles)
}

func TestPlotOfNothingIsNone(t *testing.T) {
	drawn, err := Plot(io.Discard, read(t), View)
	require.NoError(t, err)
	assert.False(t, drawn)
}

func TestPointsLieWithinTheAxes(t *testing.T) {
	p := newPlot(rows(read(t), Prepare))
	x, y := p.at(10, p.lowest)
	assert.Equal(t, [2]float64{plotLeft, plotHeight - plotBottom}, [2]float64{x, y})
	x, y = p.at(500, p.most)
	assert.Equal(t, [2]float64{plotWidth - plotRight, plotTop}, [2]float64{x, y})
}

func TestImportTableHasSecondsAndRatios(t *testing.T) {
	s := readText(t, `BenchmarkImport/clones=0/callers=1/on=zfstpl-native 1 20000000000 ns/op
BenchmarkImport/clones=0/callers=1/on=overlayfs-zfs 1 25000000000 ns/op
`)
	assert.Equal(t, `| snapshotter | seconds | ratio |
| --- | ---: | ---: |
| zfstpl | 20.0 | 1.00× |
| overlayfs on ZFS | 25.0 | 1.25× |
`, importTable(s))
	assert.Empty(t, importTable(read(t)))
}

func TestLoadRatioTableComparesMedians(t *testing.T) {
	s := readText(t, `BenchmarkIdlePrepare/clones=10/callers=1/on=zfstpl-native 1 20000000 ns/op
BenchmarkIdlePrepare/clones=10/callers=1/on=overlayfs-zfs 1 10000000 ns/op
BenchmarkBusyPrepare/clones=10/callers=1/on=zfstpl-native 1 20000000 ns/op
BenchmarkBusyPrepare/clones=10/callers=1/on=overlayfs-zfs 1 30000000 ns/op
`)
	assert.Equal(t, `| idle / busy | clones | zfstpl beside containerd's zfs plugin | zfstpl beside overlayfs on ZFS | zfstpl, built in beside overlayfs on ZFS |
| --- | ---: | ---: | ---: | ---: |
| Prepare | 10 | – / – | 0.500× / 1.50× | – / – |
`, loadRatioTable(s))
	assert.Empty(t, loadRatioTable(read(t)))
}
