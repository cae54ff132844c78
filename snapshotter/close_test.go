package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A caller gives back when its context ends, also while Close waits for
// another operation.
func TestCancelledCallerReturnsWhileCloseWaits(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
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
	result := make(chan error, 1)
	go func() { result <- second(s.sn.Prepare(ctx, "web", "")) }()
	select {
	case err := <-result:
		assert.Error(t, err)
	case <-time.After(2 * time.Second):
		assert.Fail(t, "the caller's context ended long ago, and he still waits")
		result <- errors.New("late")
	}
	close(gate)
	require.NoError(t, <-closed)
}

// Nothing is evicted by a snapshotter that is closed.
func TestBeginEvictsNothingAfterClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t, settings(func(c *Config) { c.Pressure = 80 }))
		a, b, c := threeCached(s)
		s.resize(900)
		require.NoError(t, s.sn.Close())
		s.sn.Begin(context.Background())()
		assert.True(t, s.has(a) && s.has(b) && s.has(c))
	})
}

// Close ends cleanups, also one that waits for its turn.
func TestCloseStopsWaitingCleanup(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	for i := range 5 * quietBatch {
		s.prepare(fmt.Sprint(i), "")
		s.remove(fmt.Sprint(i))
	}
	var destroys atomic.Int64
	gate := make(chan struct{})
	s.pool.interrupt(func(call string) error {
		if call == "destroy" {
			destroys.Add(1)
			<-gate
		}
		return nil
	})
	for range 2 {
		go func() { _ = s.sn.Clean(s.ctx, nil) }() // it is ended: that is looked at here
	}
	require.Eventually(t, func() bool { return destroys.Load() == 1 && s.sn.cleanup.hasWaiters() }, 10*time.Second, time.Millisecond)
	done := make(chan error, 1)
	go func() { done <- s.sn.Close() }()
	require.Eventually(t, func() bool { return s.sn.checkOpen() != nil }, 10*time.Second, time.Millisecond)
	close(gate)
	require.NoError(t, <-done)
	assert.Less(t, destroys.Load(), int64(quietBatch), "of five times as many datasets, one by one")
}
