package load

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

// Census counts what a process must release.
type Census struct {
	Goroutines int // of this process
	pid, files int
	memory     int // bytes
}

// maxGrowth is far below what a load without any release would leave, and far above what a
// heap keeps for itself.
const maxGrowth = 48 << 20

// TakeCensus counts for the process pid.
func TakeCensus(t testing.TB, pid int) Census {
	t.Helper()
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	require.NoError(t, err)
	c := Census{pid: pid, files: len(files), Goroutines: runtime.NumGoroutine()}
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

// RequireReleased asserts that the process soon has no more files open than before, and not
// much more memory. The descriptor of a closed connection is closed a moment later.
func (before Census) RequireReleased(t testing.TB) {
	t.Helper()
	var now Census
	require.Eventually(t, func() bool { now = TakeCensus(t, before.pid); return now.files <= before.files },
		harness.Patience, 100*time.Millisecond, "process %d has more files open than before", before.pid)
	assert.Less(t, now.memory, before.memory+maxGrowth, "bytes of memory of process %d", before.pid)
	t.Logf("process %d: %d files before and %d after, %d KiB and %d KiB", before.pid, before.files, now.files,
		before.memory>>10, now.memory>>10)
}

// RequireGoroutines asserts that this process soon has no more goroutines than before.
func RequireGoroutines(t testing.TB, before int) {
	t.Helper()
	for deadline := time.Now().Add(harness.Patience); runtime.NumGoroutine() > before; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			require.NoError(t, pprof.Lookup("goroutine").WriteTo(os.Stderr, 1))
			require.Fail(t, "goroutines are left", "%d, and there were %d", runtime.NumGoroutine(), before)
		}
	}
}
