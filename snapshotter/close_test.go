package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
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

func TestCloseWritesRemovals(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.layer("base", "", "")
	s.prepare("web", "base")
	s.remove("web", "base")
	require.NoError(t, s.sn.Close())
	assert.Zero(t, s.recordsInPool())
	require.NoError(t, s.sn.Close(), "once more is no error")
	s.crash()
	assert.Empty(t, s.walk())
}

// What could not be written at the end is said, and comes back.
func TestCloseReportsFailedWrite(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.prepare("web", "")
	s.remove("web")
	stuck := errors.New("stuck")
	s.pool.before = func(string) error { return stuck }
	assert.ErrorIs(t, s.sn.Close(), stuck)
	s.crash()
	assert.Equal(t, []string{"web"}, s.names())
}

func TestOperationsFailAfterClose(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.layer("base", "", "")
	s.prepare("web", "base")
	require.NoError(t, s.sn.Close())
	before := s.datasets()
	for what, err := range map[string]error{
		"prepare": second(s.sn.Prepare(s.ctx, "x", "")),
		"view":    second(s.sn.View(s.ctx, "x", "base")),
		"commit":  s.sn.Commit(s.ctx, "x", "web"),
		"remove":  s.sn.Remove(s.ctx, "web"),
		"update":  second(s.sn.Update(s.ctx, snapshots.Info{Name: "web"})),
		"usage":   second(s.sn.Usage(s.ctx, "web")),
		"cleanup": s.sn.Cleanup(s.ctx),
	} {
		assert.ErrorIs(t, err, errdefs.ErrUnavailable, what)
	}
	assert.Equal(t, before, s.datasets())
	assert.False(t, slices.Contains(s.datasets(), "x"))
}

// Close says that every later call fails; the index may be somebody else's.
func TestReadsFailAfterClose(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.prepare("web", "")
	require.NoError(t, s.sn.Close())
	for what, err := range map[string]error{
		"stat":   second(s.sn.Stat(s.ctx, "web")),
		"mounts": second(s.sn.Mounts(s.ctx, "web")),
		"walk":   s.sn.Walk(s.ctx, nil, "name==nobody"),
	} {
		assert.ErrorIs(t, err, errdefs.ErrUnavailable, what)
	}
}

// While the snapshotter closes, and waits for an operation, no other caller waits.
func TestCallersFailWhileCloseWaits(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	reached, gate := make(chan struct{}), make(chan struct{})
	s.pool.interrupt(func(call string) error {
		if call == "apply" {
			close(reached)
			<-gate
		}
		return nil
	})
	go s.sn.Prepare(s.ctx, "slow", "") // it fails or not, and that is not looked at
	<-reached
	closed := make(chan error, 1)
	go func() { closed <- s.sn.Close() }()
	for s.sn.closing.TryRLock() { // a writer that waits keeps readers out: then Close has begun
		s.sn.closing.RUnlock()
		time.Sleep(time.Millisecond)
	}
	all := make(chan error, len(writeOps))
	for _, do := range writeOps {
		go func() { all <- do(s.ctx, s) }()
	}
	for range writeOps {
		select {
		case err := <-all:
			assert.ErrorIs(t, err, errdefs.ErrUnavailable)
		case <-time.After(10 * time.Second):
			assert.Fail(t, "a caller waits for another's operation")
		}
	}
	close(gate)
	require.NoError(t, <-closed)
}

// Close waits for what is under way, and it is not lost.
func TestCloseWaitsForRunningOperations(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"prepare", "view", "commit", "update", "cleanup"} {
		synctest.Test(t, func(t *testing.T) {
			s := newWriteFixture(t)
			resume := s.block("apply")
			ctx, cancel := context.WithCancel(s.ctx)
			result, closed := make(chan error, 1), make(chan error, 1)
			go func() { result <- writeOps[what](ctx, s) }()
			synctest.Wait()
			cancel() // not even the caller waits
			<-result
			go func() { closed <- s.sn.Close() }()
			resume()
			require.NoError(t, <-closed, what)
			live := dump(s.sn)
			s.start()
			assert.Equal(t, dump(s.sn), live, what)
		})
	}
}
