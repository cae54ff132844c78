package snapshotter

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A caller gives back when its context ends, also while Close waits for
// another operation.
func TestACallerDoesNotWaitForClose(t *testing.T) {
	t.Parallel()
	s := begin(t)
	reached, gate := make(chan struct{}), make(chan struct{})
	s.pool.before = func(call string) error {
		if call == "apply" {
			close(reached)
			<-gate
		}
		return nil
	}
	go s.sn.Prepare(s.ctx, "slow", "")
	<-reached
	closed := make(chan error, 1)
	go func() { closed <- s.sn.Close() }()
	// A writer that waits keeps readers out: then Close has begun.
	for s.sn.closing.TryRLock() {
		s.sn.closing.RUnlock()
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(s.ctx, 10*time.Millisecond)
	defer cancel()
	answer := make(chan error, 1)
	go func() { answer <- second(s.sn.Prepare(ctx, "web", "")) }()
	select {
	case err := <-answer:
		assert.Error(t, err)
	case <-time.After(2 * time.Second):
		assert.Fail(t, "the caller's context ended long ago, and he still waits")
		answer <- errors.New("late")
	}
	close(gate)
	require.NoError(t, <-closed)
}
