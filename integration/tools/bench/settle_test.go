//go:build linux

package main

import (
	"context"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
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
