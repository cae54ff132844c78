package snapshotter

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/zfs/zfsfake"
)

// block makes calls of one kind to the pool wait until resume is called.
func (s *fixture) block(kind zfsfake.Kind) (resume func()) {
	gate := make(chan struct{})
	end := s.pool.FailAt(zfsfake.Before(kind), zfsfake.Wait(gate))
	return func() {
		s.Helper()
		end()
		close(gate)
	}
}

// writeOps are the methods that write, for the fixture of newWriteFixture.
var writeOps = map[string]func(ctx context.Context, s *fixture) error{
	"prepare": func(ctx context.Context, s *fixture) error { return second(s.sn.Prepare(ctx, "x", "base")) },
	"view":    func(ctx context.Context, s *fixture) error { return second(s.sn.View(ctx, "x", "base")) },
	"commit":  func(ctx context.Context, s *fixture) error { return s.sn.Commit(ctx, "x", "web") },
	"update": func(ctx context.Context, s *fixture) error {
		return second(s.sn.Update(ctx, snapshots.Info{Name: "web", Labels: map[string]string{"a": "b"}}))
	},
	"reuse": func(ctx context.Context, s *fixture) error {
		return second(s.sn.Prepare(ctx, "default/9/x", "", ref(chain("a"))))
	},
	"remove":  func(ctx context.Context, s *fixture) error { return s.sn.Remove(ctx, "web") },
	"cleanup": func(ctx context.Context, s *fixture) error { return s.sn.Cleanup(ctx) },
}

// newWriteFixture returns a fixture with the snapshots that writeOps use.
func newWriteFixture(t *testing.T) *fixture {
	s := newFixture(t)
	s.layer("base", "", "b;")
	s.prepare("web", "base")
	name, _ := s.pull("default", "", chain("a"), "a;")
	s.cleanup()
	s.remove(name)
	return s
}

func TestCancelledContextChangesNothing(t *testing.T) {
	t.Parallel()
	for what, do := range writeOps {
		s := newWriteFixture(t)
		before := dump(s.sn)
		calls := s.pool.Count(zfsfake.Before(zfsfake.Call))
		ctx, cancel := context.WithCancel(s.ctx)
		cancel()
		assert.ErrorIs(t, do(ctx, s), context.Canceled, what)
		assert.Equal(t, before, dump(s.sn), what)
		assert.Zero(t, calls(), what)
	}
}

// If the caller gives up during a transaction, the operation returns at once and the
// transaction is completed. Afterwards index and pool agree.
func TestOperationContinuesAfterCallerGivesUp(t *testing.T) {
	t.Parallel()
	for what, do := range writeOps {
		if what == "remove" {
			continue // never waits
		}
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newWriteFixture(t)
				resume := s.block(zfsfake.Apply)
				ctx, cancel := context.WithCancel(s.ctx)
				result := make(chan error, 1)
				go func() { result <- do(ctx, s) }()
				synctest.Wait()
				require.Empty(t, result, "the transaction is running")
				cancel()
				synctest.Wait()
				require.Len(t, result, 1, "the operation returns at once")
				require.ErrorIs(t, <-result, context.Canceled)
				resume()
				synctest.Wait()
				s.requireInvariants()
				switch what {
				case "prepare", "view", "commit":
					assert.Contains(t, s.names(), "x", "the transaction is completed")
				case "update":
					assert.Equal(t, "b", s.stat("web").Labels["a"])
				case "reuse":
					assert.NotEmpty(t, s.findCommitted("", chain("a")))
				}
			})
		})
	}
}

// An operation that is cancelled while it waits for its key changes nothing.
func TestCancelledWaitForKeyChangesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newWriteFixture(t)
		resume := s.block(zfsfake.Apply)
		go writeOps["prepare"](s.ctx, s)
		synctest.Wait()
		ctx, cancel := context.WithCancel(s.ctx)
		results := make(chan error, 2)
		go func() { results <- second(s.sn.Prepare(ctx, "x", "base")) }()
		go func() { results <- s.sn.Commit(ctx, "x", "web") }()
		synctest.Wait()
		require.Empty(t, results)
		cancel()
		synctest.Wait()
		require.ErrorIs(t, <-results, context.Canceled)
		require.ErrorIs(t, <-results, context.Canceled)
		resume()
		synctest.Wait()
		assert.Equal(t, snapshots.KindActive, s.stat("x").Kind)
		assert.Equal(t, snapshots.KindActive, s.stat("web").Kind)
		assert.Empty(t, heldLocks(s.sn), "all locks are released")
		s.requireInvariants()
	})
}

// While an operation waits for the pool, reads and operations on other snapshots do not
// wait.
func TestBlockedOperationDelaysNoOther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newWriteFixture(t)
		s.view("look", "base")
		resume := s.block(zfsfake.Apply)
		done := make(chan error, 1)
		go func() { done <- writeOps["commit"](s.ctx, s) }()
		synctest.Wait()
		assert.Equal(t, snapshots.KindActive, s.stat("web").Kind)
		assert.Equal(t, []string{"base", "look", "web"}, s.names())
		_, err := s.sn.Usage(s.ctx, "web")
		require.NoError(t, err)
		s.remove("look")
		require.Empty(t, done)
		resume()
		require.NoError(t, <-done)
		s.requireInvariants()
	})
}

// A parent is neither removed nor destroyed while a child is created.
func TestParentIsNotRemovedWhileChildIsCreated(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t, keepCached(0))
		s.layer("base", "", "b;")
		s.cleanup()
		resume := s.block(zfsfake.Apply)
		done := make(chan error, 1)
		go func() { done <- second(s.sn.Prepare(s.ctx, "web", "base")) }()
		synctest.Wait()
		assert.Error(t, s.sn.Remove(s.ctx, "base"))
		s.cleanup()
		resume()
		require.NoError(t, <-done)
		assert.Equal(t, "b;", s.visible()["web"].Content)
		s.requireInvariants()
	})
}

// A layer is requested while a cleanup destroys it, and the reverse. In each order Prepare
// either finds the layer or prepares an extraction.
func TestReuseConcurrentWithCleanup(t *testing.T) {
	t.Parallel()
	for _, kind := range []zfsfake.Kind{zfsfake.Destroy, zfsfake.Apply} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newFixture(t, keepCached(0))
				a, _ := s.pull("default", "", chain("a"), "a;")
				s.remove(a)
				s.flush()
				resume := s.block(kind)
				first, then := writeOps["cleanup"], writeOps["reuse"]
				if kind == zfsfake.Apply {
					first, then = then, first
				}
				results := make(chan error, 2)
				go func() { results <- first(s.ctx, s) }()
				synctest.Wait()
				go func() { results <- then(s.ctx, s) }()
				synctest.Wait()
				resume()
				<-results
				<-results
				if name := s.findCommitted("", chain("a")); name != "" {
					assert.Equal(t, "a;", s.visible()[name].Content)
				} else {
					assert.Equal(t, snapshots.KindActive, s.stat("default/9/x").Kind, "the layer is unpacked again")
				}
				s.requireInvariants()
			})
		})
	}
}
