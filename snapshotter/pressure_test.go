package snapshotter

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/internal/reaper"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
	"github.com/zfstpl/zfstpl/snapshotter/zfs/zfsfake"
)

// underPressure returns a fixture with the templates of threeCached in a pool of the given
// size. Size 1000 makes an eviction of two of them due, size 900 of all three.
func underPressure(t *testing.T, mode CleanupMode, size uint64) (s *fixture, a, b, c string) {
	t.Helper()
	s = newFixture(t, settings(func(c *Config) { c.Pressure, c.Cleanup = 80, mode }))
	a, b, c = threeCached(s)
	require.NoError(t, s.sn.Clean(s.ctx, nil))
	time.Sleep(time.Minute)
	synctest.Wait() // no cleanup is due, in any mode
	s.resize(size)
	return s, a, b, c
}

// pressureChecked waits until the pressure check that an operation has caused is complete, or
// blocked. It works in a synctest bubble only.
func (s *fixture) pressureChecked() {
	time.Sleep(reaper.PressureDelay)
	synctest.Wait()
}

var allModes = []CleanupMode{CleanupGC, CleanupBackground, CleanupManual}

// Neither Prepare nor Apply waits for an eviction under pressure, in any cleanup mode,
// because there is space left.
func TestNothingWaitsForEvictionUnderPressure(t *testing.T) {
	t.Parallel()
	for _, mode := range allModes {
		for what, write := range map[string]func(s *fixture) error{
			"prepare": func(s *fixture) error { return second(s.sn.Prepare(s.ctx, "x", "")) },
			"apply":   func(s *fixture) error { s.sn.Begin(s.ctx)(); return nil },
		} {
			t.Run(string(mode)+" "+what, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					s, a, b, c := underPressure(t, mode, 1000)
					resume := s.block(zfsfake.Destroy)
					began := time.Now()
					require.NoError(t, write(s))
					require.NoError(t, second(s.sn.Prepare(s.ctx, "y", "")))
					assert.Equal(t, began, time.Now())
					s.pressureChecked()
					assert.True(t, s.has(a) && s.has(b) && s.has(c), "the eviction is blocked")
					resume()
					synctest.Wait()
					assert.True(t, s.has(a))
					assert.False(t, s.has(b) || s.has(c))
					s.requireInvariants()
				})
			})
		}
	}
}

// StopCleanup ends an eviction under pressure after the current dataset, and no other
// begins before the next cleanup. Close ends it too, and does not wait for more.
func TestEvictionUnderPressureIsStopped(t *testing.T) {
	t.Parallel()
	for _, mode := range allModes {
		t.Run(string(mode)+" by command", func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, a, b, c := underPressure(t, mode, 900)
				end := s.sn.Begin(s.ctx) // makes each batch a single dataset
				resume := s.block(zfsfake.Destroy)
				s.pressureChecked()
				assert.True(t, s.sn.StopCleanup())
				resume()
				synctest.Wait()
				assert.False(t, s.has(c))
				assert.True(t, s.has(a) && s.has(b))
				time.Sleep(reaper.PressureInterval)
				s.prepare("x", "")
				s.pressureChecked()
				assert.True(t, s.has(b), "no eviction begins")
				end()
				require.NoError(t, s.sn.Clean(s.ctx, nil))
				assert.False(t, s.has(b))
				assert.NotContains(t, s.log.String(), "failed")
				s.requireInvariants()
			})
		})
		t.Run(string(mode)+" by Close", func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, a, b, c := underPressure(t, mode, 900)
				defer s.sn.Begin(s.ctx)()
				resume := s.block(zfsfake.Destroy)
				s.pressureChecked()
				closed := make(chan error, 1)
				go func() { closed <- s.sn.Close() }()
				synctest.Wait()
				resume()
				require.NoError(t, <-closed)
				assert.False(t, s.has(c))
				assert.True(t, s.has(a) && s.has(b))
				assert.NotContains(t, s.log.String(), "failed")
			})
		})
	}
}

// An eviction for which no caller waits yields to a cleanup for which one does.
func TestEvictionUnderPressureYieldsToCleanup(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, a, b, c := underPressure(t, CleanupManual, 900)
		defer s.sn.Begin(s.ctx)()
		resume := s.block(zfsfake.Destroy)
		s.pressureChecked()
		done := make(chan error, 1)
		var last reaper.Progress
		go func() { done <- s.sn.Clean(s.ctx, func(p reaper.Progress) { last = p }) }()
		synctest.Wait()
		resume()
		require.NoError(t, <-done)
		assert.False(t, s.has(a) || s.has(b) || s.has(c), "the cleanup evicts the rest")
		assert.Equal(t, 2, last.Destroyed, "all but the one that the eviction destroyed")
		assert.NotContains(t, s.log.String(), "failed")
		s.requireInvariants()
	})
}

// A running cleanup evicts under pressure, and no second eviction begins beside it.
func TestNoEvictionBesideACleanup(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, _, b, c := underPressure(t, CleanupManual, 900)
		s.prepare("gone", "")
		s.remove("gone")
		resume := s.block(zfsfake.Destroy)
		done := make(chan error, 1)
		go func() { done <- s.sn.Clean(s.ctx, nil) }()
		synctest.Wait()
		time.Sleep(reaper.PressureInterval)
		s.prepare("x", "")
		s.pressureChecked()
		resume()
		require.NoError(t, <-done)
		assert.False(t, s.has(b) || s.has(c))
		s.requireInvariants()
	})
}

// A layer that is requested during an eviction is in use, and is kept.
func TestEvictionKeepsLayersRequestedMeanwhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, a, b, c := underPressure(t, CleanupManual, 1000)
		resume := s.block(zfsfake.Space) // the call before the plan is made
		s.prepare("x", "")
		s.pressureChecked()
		_, unpacked := s.pull("default", "", chain("c"), hundred)
		assert.False(t, unpacked)
		resume()
		synctest.Wait()
		assert.True(t, s.has(c))
		assert.False(t, s.has(b) || s.has(a), "evicted in its place")
		s.requireInvariants()
	})
}

// longChain returns the i-th of many chain IDs.
func longChain(i int) string { return fmt.Sprintf("sha256:%064x", i) }

// A reclaim ends when its last caller has given up.
func TestReclaimEndsWithItsLastCaller(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t)
		const templates = 3 * reaper.QuietBatch
		for i := range templates {
			name, _ := s.pull("default", "", longChain(i), hundred)
			s.remove(name)
		}
		s.cleanup()
		before := len(s.templates())
		s.resize(100 * templates)
		resume := s.block(zfsfake.Destroy)
		errs := make(chan error, 2)
		first, leave := context.WithCancel(s.ctx)
		other, leaveToo := context.WithCancel(s.ctx)
		for key, ctx := range map[string]context.Context{"x": first, "y": other} {
			go func() { errs <- second(s.sn.Prepare(ctx, key, "")) }()
		}
		synctest.Wait()
		leave()
		synctest.Wait()
		require.ErrorIs(t, <-errs, context.Canceled)
		leaveToo()
		synctest.Wait()
		resume()
		require.ErrorIs(t, <-errs, context.Canceled)
		synctest.Wait()
		assert.Len(t, s.templates(), before-reaper.QuietBatch, "only the current batch was destroyed")
		s.remove("x", "y") // the operations may have succeeded
		synctest.Wait()
		s.requireInvariants()
		assert.Empty(t, heldLocks(s.sn))
	})
}

// A reclaim continues while one of its callers waits.
func TestReclaimContinuesForTheRemainingCaller(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t)
		a, b, c := threeCached(s)
		s.resize(900)
		resume := s.block(zfsfake.Destroy)
		ctx, leave := context.WithCancel(s.ctx)
		gone, stays := make(chan error, 1), make(chan error, 1)
		go func() { gone <- second(s.sn.Prepare(ctx, "x", "")) }()
		synctest.Wait()
		go func() { stays <- second(s.sn.Prepare(s.ctx, "y", "")) }()
		synctest.Wait()
		leave()
		require.ErrorIs(t, <-gone, context.Canceled)
		resume()
		require.NoError(t, <-stays)
		assert.False(t, s.has(a) || s.has(b) || s.has(c))
		s.remove("x")
		synctest.Wait()
		s.requireInvariants()
	})
}

// Close ends a reclaim. Neither Close nor the callers wait for more than the current batch,
// nor until ZFS has freed it.
func TestCloseEndsReclaim(t *testing.T) {
	t.Parallel()
	for _, kind := range []zfsfake.Kind{zfsfake.Destroy, zfsfake.WaitFreed} {
		synctest.Test(t, func(t *testing.T) {
			s := newFixture(t)
			key := s.backend("default", "extract-9-x "+chain("f"))
			require.NoError(t, second(s.sn.Prepare(s.ctx, key, "")))
			const templates = 3 * reaper.QuietBatch
			for i := range templates {
				name, _ := s.pull("default", "", longChain(i), hundred)
				s.remove(name)
			}
			s.cleanup()
			before := len(s.templates())
			partial := s.dataset(key)
			s.resize(100 * templates)
			resume := s.block(kind)
			errs := make(chan error, 2)
			go func() { errs <- second(s.sn.Prepare(s.ctx, "x", "")) }()
			synctest.Wait()
			go func() {
				_, _, err := s.sn.Renew(s.ctx, partial, zfs.ErrNoSpace)
				errs <- err
			}()
			synctest.Wait()
			closed := make(chan error, 1)
			go func() { closed <- s.sn.Close() }()
			synctest.Wait()
			began := time.Now()
			resume()
			for range 2 {
				err := <-errs
				require.Error(t, err)
				assert.True(t, errdefs.IsUnavailable(err) || strings.Contains(err.Error(), "is closed"), "%v", err)
			}
			require.NoError(t, <-closed)
			assert.Equal(t, began, time.Now())
			if kind == zfsfake.Destroy {
				assert.GreaterOrEqual(t, len(s.templates()), before-reaper.QuietBatch)
			}
			s.start()
			s.resize(0)
			s.requireInvariants()
		})
	}
}
