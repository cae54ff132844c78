package harness

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/waits"
)

// WatchWaits starts to count what a process waits for, until t ends. It skips t if the kernel
// cannot count that.
func WatchWaits(t testing.TB, pid int, pool string) *waits.Watch {
	t.Helper()
	w, err := waits.Start(pid, pool)
	if errors.Is(err, waits.ErrUnavailable) {
		t.Skipf("cannot count what a process waits for: %v", err)
	}
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, w.Close(), "the probes are removed") })
	return w
}
