package report

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/tools/bench/internal/result"
)

func TestWaitsTableHasTxgsAndZILCommits(t *testing.T) {
	s, err := result.Read(strings.NewReader(`BenchmarkTxgsPrepare/clones=10/callers=1/on=zfstpl-native 1 0 txgs/op
BenchmarkTxgsPrepare/clones=10/callers=1/on=zfstpl-native 1 1 txgs/op
BenchmarkZILPrepare/clones=10/callers=1/on=zfstpl-native 1 1 zil-commits/op
BenchmarkTxgsPrepare/clones=10/callers=1/on=zfs-plugin 1 4 txgs/op
BenchmarkZILPrepare/clones=10/callers=1/on=zfs-plugin 1 0 zil-commits/op
BenchmarkTxgsExtract/clones=10/callers=1/on=zfstpl-native 1 1 txgs/op
BenchmarkZILExtract/clones=10/callers=1/on=zfstpl-native 1 0 zil-commits/op
`))
	require.NoError(t, err)
	assert.Equal(t, `| operation | zfstpl | containerd's zfs plugin |
| --- | ---: | ---: |
| Prepare | 0.5, 1 | 4, 0 |
| Apply and Commit of a layer | 1, 0 | – |
`, waitsTable(s))
	assert.Empty(t, waitsTable(read(t)))
}

func TestImportTableHasSecondsAndRatios(t *testing.T) {
	s, err := result.Read(strings.NewReader(`BenchmarkImport/clones=0/callers=1/on=zfstpl-native 1 20000000000 ns/op
BenchmarkImport/clones=0/callers=1/on=overlayfs-zfs 1 25000000000 ns/op
`))
	require.NoError(t, err)
	assert.Equal(t, `| snapshotter | seconds | ratio |
| --- | ---: | ---: |
| zfstpl | 20.0 | 1.00× |
| overlayfs on ZFS | 25.0 | 1.25× |
`, importTable(s))
	assert.Empty(t, importTable(read(t)))
}

func TestTraceTableHasThePartsOfEachOperation(t *testing.T) {
	s, err := result.Read(strings.NewReader(`BenchmarkTraceTookPrepare/clones=10/callers=1/on=zfstpl-native 1 28000000 ns/op
BenchmarkTraceClientPrepare/clones=10/callers=1/on=zfstpl-native 1 3000000 ns/op
BenchmarkTraceContainerdPrepare/clones=10/callers=1/on=zfstpl-native 1 12000000 ns/op
BenchmarkTraceSnapshotterPrepare/clones=10/callers=1/on=zfstpl-native 1 9000000 ns/op
BenchmarkTraceRestPrepare/clones=10/callers=1/on=zfstpl-native 1 1000000 ns/op
BenchmarkTraceTookPrepare/clones=10/callers=1/on=overlayfs-zfs 1 20000000 ns/op
`))
	require.NoError(t, err)
	assert.Equal(t, `| operation |  | took | client | containerd | snapshotter's process | rest |
| --- | --- | ---: | ---: | ---: | ---: | ---: |
| Prepare | zfstpl | 28.0 | 3.00 | 12.0 | 9.00 | 1.00 |
| Prepare | overlayfs on ZFS | 20.0 | – | – | – | – |
`, traceTable(s))
	assert.Empty(t, traceTable(read(t)))
}

func TestLoadRatioTableComparesMedians(t *testing.T) {
	s, err := result.Read(strings.NewReader(`BenchmarkIdlePrepare/clones=10/callers=1/on=zfstpl-native 1 20000000 ns/op
BenchmarkIdlePrepare/clones=10/callers=1/on=overlayfs-zfs 1 10000000 ns/op
BenchmarkBusyPrepare/clones=10/callers=1/on=zfstpl-native 1 20000000 ns/op
BenchmarkBusyPrepare/clones=10/callers=1/on=overlayfs-zfs 1 30000000 ns/op
`))
	require.NoError(t, err)
	assert.Equal(t, `| idle / busy | clones | zfstpl beside containerd's zfs plugin | zfstpl beside overlayfs on ZFS | zfstpl, built in beside overlayfs on ZFS |
| --- | ---: | ---: | ---: | ---: |
| Prepare | 10 | – / – | 0.500× / 1.50× | – / – |
`, loadRatioTable(s))
	assert.Empty(t, loadRatioTable(read(t)))
}
