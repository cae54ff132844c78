//go:build linux

package main

import (
	"context"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestSettleWaitsForAProcessThatWorks(t *testing.T) {
	t.Parallel()
	// It works for one to two seconds, and is idle then.
	command := exec.Command("sh", "-c", "end=$(($(date +%s)+2)); while [ $(date +%s) -lt $end ]; do i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; done; exec sleep 60")
	require.NoError(t, command.Start())
	t.Cleanup(func() { _ = command.Process.Kill(); _ = command.Wait() })
	began := time.Now()
	require.NoError(t, settle(context.Background(), command.Process.Pid))
	assert.GreaterOrEqual(t, time.Since(began), 2*settleQuiet, "it worked during the first look")
	assert.NoError(t, settle(context.Background(), 0), "there is nothing to wait for")
}

// A thread that ends takes its time with it in /proc, but not in the clock of its process.
func TestProcessorTimeHasThatOfThreadsThatEnded(t *testing.T) {
	before, ok := processorTime(os.Getpid())
	require.True(t, ok)
	ended := make(chan time.Duration)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		began := time.Now()
		for time.Since(began) < 200*time.Millisecond {
		}
		var ts unix.Timespec
		_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts)
		ended <- time.Duration(ts.Nano())
	}()
	used := <-ended
	after, _ := processorTime(os.Getpid())
	assert.GreaterOrEqual(t, after-before, used/2, "without the thread it is next to nothing; the kernel updates the clocks now and then")
	_, ok = processorTime(1 << 22) // more than the greatest PID
	assert.False(t, ok)
}
