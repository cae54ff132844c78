package report

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestWaitsTableHasTxgsAndZILCommits(t *testing.T) {
	s := readText(t, `BenchmarkTxgsPrepare/clones=10/callers=1/on=zfstpl-native 1 0 txgs/op
BenchmarkTxgsPrepare/clones=10/callers=1/on=zfstpl-native 1 1 txgs/op
BenchmarkZILPrepare/clones=10/callers=1/on=zfstpl-native 1 1 zil-commits/op
BenchmarkTxgsPrepare/clones=10/callers=1/on=zfs-plugin 1 4 txgs/op
BenchmarkZILPrepare/clones=10/callers=1/on=zfs-plugin 1 0 zil-commits/op
BenchmarkTxgsExtract/clones=10/callers=1/on=zfstpl-native 1 1 txgs/op
BenchmarkZILExtract/clones=10/callers=1/on=zfstpl-native 1 0 zil-commits/op
`)
	assert.Equal(t, `| operation | zfstpl | containerd's zfs plugin |
| --- | ---: | ---: |
| Prepare | 0.5, 1 | 4, 0 |
| Apply and Commit of a layer | 1, 0 | – |
`, waitsTable(s))
	assert.Empty(t, waitsTable(read(t)))
}
