package report

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestTraceTableHasThePartsOfEachOperation(t *testing.T) {
	s := readText(t, `BenchmarkTraceTookPrepare/clones=10/callers=1/on=zfstpl-native 1 28000000 ns/op
BenchmarkTraceClientPrepare/clones=10/callers=1/on=zfstpl-native 1 3000000 ns/op
BenchmarkTraceContainerdPrepare/clones=10/callers=1/on=zfstpl-native 1 12000000 ns/op
BenchmarkTraceSnapshotterPrepare/clones=10/callers=1/on=zfstpl-native 1 9000000 ns/op
BenchmarkTraceRestPrepare/clones=10/callers=1/on=zfstpl-native 1 1000000 ns/op
BenchmarkTraceTookPrepare/clones=10/callers=1/on=overlayfs-zfs 1 20000000 ns/op
`)
	assert.Equal(t, `| operation |  | took | client | containerd | snapshotter's process | rest |
| --- | --- | ---: | ---: | ---: | ---: | ---: |
| Prepare | zfstpl | 28.0 | 3.00 | 12.0 | 9.00 | 1.00 |
| Prepare | overlayfs on ZFS | 20.0 | – | – | – | – |
`, traceTable(s))
	assert.Empty(t, traceTable(read(t)))
}
