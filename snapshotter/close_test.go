package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/internal/reaper"
	"github.com/zfstpl/zfstpl/snapshotter/zfs/zfsfake"
)

// An operation returns when its context ends, even while Close waits for another operation.
func TestCancelledCallerReturnsWhileCloseWaits(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	reached, gate := make(chan struct{}), make(chan struct{})
	s.pool.FailAt(zfsfake.Before(zfsfake.Apply), zfsfake.Do(func() error {
		close(reached)
		<-gate
		return nil
	}))
	go s.sn.Prepare(s.ctx, "slow", "")
	<-reached
	closed := make(chan error, 1)
	go func() { closed <- s.sn.Close() }()
	// A waiting writer blocks readers, so TryRLock fails once Close has begun.
	for s.sn.gate.closing.TryRLock() {
		s.sn.gate.closing.RUnlock()
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
		assert.Fail(t, "the operation did not return after its context ended")
		result <- errors.New("late")
	}
	close(gate)
	require.NoError(t, <-closed)
}

// A closed snapshotter evicts nothing.
func TestBeginEvictsNothingAfterClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t, settings(func(c *Config) { c.Pressure = 80 }))
		a, b, c := threeCached(s)
		s.resize(900)
		require.NoError(t, s.sn.Close())
		s.sn.Begin(context.Background())()
		s.pressureChecked()
		assert.True(t, s.has(a) && s.has(b) && s.has(c))
	})
}

// Close stops the running cleanup and one that waits for the lock.
func TestCloseStopsWaitingCleanup(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	for i := range 5 * reaper.QuietBatch {
		s.prepare(fmt.Sprint(i), "")
		s.remove(fmt.Sprint(i))
	}
	destroys := s.pool.Count(zfsfake.Before(zfsfake.Destroy))
	gate := make(chan struct{})
	s.pool.FailAt(zfsfake.Before(zfsfake.Destroy), zfsfake.Wait(gate))
	for range 2 {
		go func() { _ = s.sn.Clean(s.ctx, nil) }() // its error is not the subject
	}
	require.Eventually(t, func() bool { return destroys() == 1 && s.sn.reaper.HasWaiters() }, 10*time.Second, time.Millisecond)
	done := make(chan error, 1)
	go func() { done <- s.sn.Close() }()
	require.Eventually(t, func() bool { return s.sn.gate.checkOpen() != nil }, 10*time.Second, time.Millisecond)
	close(gate)
	require.NoError(t, <-done)
	assert.Less(t, destroys(), reaper.QuietBatch, "the cleanup ended early")
}

func TestCloseWritesRemovals(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.layer("base", "", "")
	s.prepare("web", "base")
	s.remove("web", "base")
	require.NoError(t, s.sn.Close())
	assert.Zero(t, s.recordsInPool())
	require.NoError(t, s.sn.Close(), "a second Close is not an error")
	s.crash()
	assert.Empty(t, s.walk())
}

// Close returns the error of a write that fails. The snapshot exists again after a start.
func TestCloseReportsFailedWrite(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.prepare("web", "")
	s.remove("web")
	stuck := errors.New("stuck")
	s.pool.FailAt(zfsfake.Before(zfsfake.Call), zfsfake.Return(stuck))
	assert.ErrorIs(t, s.sn.Close(), stuck)
	s.crash()
	assert.Equal(t, []string{"web"}, s.names())
}

// After Close, every operation that writes or queries the pool returns an error.
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

// After Close, methods that only read the index return an error too: another snapshotter
// may have changed the base.
func TestReadsFailAfterClose(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.prepare("web", "")
	require.NoError(t, s.sn.Close())
	for what, err := range map[string]error{
		"stat":   second(s.sn.Stat(s.ctx, "web")),
		"mounts": second(s.sn.Mounts(s.ctx, "web")),
		"walk":   s.sn.Walk(s.ctx, nil, "name==x"),
	} {
		assert.ErrorIs(t, err, errdefs.ErrUnavailable, what)
	}
}

// While Close waits for an operation, every other operation returns ErrUnavailable at once.
func TestCallersFailWhileCloseWaits(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	reached, gate := make(chan struct{}), make(chan struct{})
	s.pool.FailAt(zfsfake.Before(zfsfake.Apply), zfsfake.Do(func() error {
		close(reached)
		<-gate
		return nil
	}))
	go s.sn.Prepare(s.ctx, "slow", "") // its error is not the subject
	<-reached
	closed := make(chan error, 1)
	go func() { closed <- s.sn.Close() }()
	for s.sn.gate.closing.TryRLock() { // fails once Close waits for the lock
		s.sn.gate.closing.RUnlock()
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
			assert.Fail(t, "an operation waits for Close")
		}
	}
	close(gate)
	require.NoError(t, <-closed)
}

// Close waits for a running operation, whose result is in the pool afterwards.
func TestCloseWaitsForRunningOperations(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"prepare", "view", "commit", "update", "cleanup"} {
		synctest.Test(t, func(t *testing.T) {
			s := newWriteFixture(t)
			resume := s.block(zfsfake.Apply)
			ctx, cancel := context.WithCancel(s.ctx)
			result, closed := make(chan error, 1), make(chan error, 1)
			go func() { result <- writeOps[what](ctx, s) }()
			synctest.Wait()
			cancel() // the caller gives up too
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
