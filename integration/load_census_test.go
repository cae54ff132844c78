package integration

import (
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/harness"
)

// census counts what a process must not gather.
type census struct {
	pid, files, goroutines int
	memory                 int // bytes
}

// maxGrowth is far below what a load would leave that forgets nothing, and far
// above what a heap keeps for itself.
const maxGrowth = 48 << 20

func takeCensus(t *testing.T, pid int) census {
	t.Helper()
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	require.NoError(t, err)
	c := census{pid: pid, files: len(files), goroutines: runtime.NumGoroutine()}
	if pid == os.Getpid() {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		c.memory = int(m.HeapAlloc)
		return c
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	require.NoError(t, err)
	_, rest, _ := strings.Cut(string(status), "RssAnon:")
	kilobytes, err := strconv.Atoi(strings.Fields(rest)[0])
	require.NoError(t, err)
	c.memory = kilobytes << 10
	return c
}

// requireSame wants the process to have let go of everything, soon: a closed
// connection's descriptor goes a moment later.
func (before census) requireSame(t *testing.T) {
	t.Helper()
	var now census
	require.Eventually(t, func() bool { now = takeCensus(t, before.pid); return now.files <= before.files },
		harness.Patience, 100*time.Millisecond, "process %d has more files open than before", before.pid)
	assert.Less(t, now.memory, before.memory+maxGrowth, "bytes of memory of process %d", before.pid)
	t.Logf("process %d: %d files before and %d after, %d KiB and %d KiB", before.pid, before.files, now.files,
		before.memory>>10, now.memory>>10)
}

func requireGoroutines(t *testing.T, before int) {
	t.Helper()
	for deadline := time.Now().Add(harness.Patience); runtime.NumGoroutine() > before; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			require.NoError(t, pprof.Lookup("goroutine").WriteTo(os.Stderr, 1))
			require.Fail(t, "goroutines are left", "%d, and there were %d", runtime.NumGoroutine(), before)
		}
	}
}
