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

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// underPressure is a story with the three templates of threeWarm in a pool of that
// size, which is so full that two of them go, or where it is 900 all three.
func underPressure(t *testing.T, mode CleanupMode, size uint64) (s *story, a, b, c string) {
	t.Helper()
	s = begin(t, settings(func(c *Config) { c.Pressure, c.Cleanup = 80, mode }))
	a, b, c = threeCached(s)
	require.NoError(t, s.sn.Clean(s.ctx, nil))
	time.Sleep(time.Minute)
	synctest.Wait() // nothing is owed, in no mode
	s.resize(size)
	return s, a, b, c
}

var allModes = []CleanupMode{CleanupGC, CleanupBackground, CleanupManual}

// Neither a Prepare nor an unpacking waits for what is evicted under pressure, in
// whatever mode cleanups are: there is room left.
func TestNothingWaitsForEvictionUnderPressure(t *testing.T) {
	t.Parallel()
	for _, mode := range allModes {
		for what, write := range map[string]func(s *story) error{
			"prepare": func(s *story) error { return second(s.sn.Prepare(s.ctx, "x", "")) },
			"apply":   func(s *story) error { s.sn.Begin(s.ctx)(); return nil },
		} {
			t.Run(string(mode)+" "+what, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					s, a, b, c := underPressure(t, mode, 1000)
					letGo := s.slow("destroy")
					began := time.Now()
					require.NoError(t, write(s))
					require.NoError(t, second(s.sn.Prepare(s.ctx, "y", "")))
					assert.Equal(t, began, time.Now())
					synctest.Wait()
					assert.True(t, s.has(a) && s.has(b) && s.has(c), "it hangs")
					letGo()
					synctest.Wait()
					assert.True(t, s.has(a))
					assert.False(t, s.has(b) || s.has(c))
					s.pool.interrupt(nil)
					s.requireInvariants()
				})
			})
		}
	}
}

// Eviction under pressure ends behind the dataset that it is at when cleanups are
// stopped, and none begins before the next cleanup; so it does when the daemon is
// stopped, which waits for no more.
func TestEvictionUnderPressureIsStopped(t *testing.T) {
	t.Parallel()
	for _, mode := range allModes {
		t.Run(string(mode)+" by command", func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, a, b, c := underPressure(t, mode, 900)
				end := s.sn.Begin(s.ctx) // so that they go one by one
				letGo := s.slow("destroy")
				synctest.Wait()
				assert.True(t, s.sn.StopCleanup())
				letGo()
				s.pool.interrupt(nil)
				synctest.Wait()
				assert.False(t, s.has(c))
				assert.True(t, s.has(a) && s.has(b))
				time.Sleep(pressureInterval)
				s.prepare("x", "")
				synctest.Wait()
				assert.True(t, s.has(b), "nothing begins by itself")
				end()
				require.NoError(t, s.sn.Clean(s.ctx, nil))
				assert.False(t, s.has(b))
				assert.NotContains(t, s.log.String(), "could not be")
				s.requireInvariants()
			})
		})
		t.Run(string(mode)+" by the end", func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, a, b, c := underPressure(t, mode, 900)
				defer s.sn.Begin(s.ctx)()
				letGo := s.slow("destroy")
				synctest.Wait()
				closed := make(chan error, 1)
				go func() { closed <- s.sn.Close() }()
				synctest.Wait()
				letGo()
				require.NoError(t, <-closed)
				assert.False(t, s.has(c))
				assert.True(t, s.has(a) && s.has(b))
				assert.NotContains(t, s.log.String(), "could not be")
			})
		})
	}
}

// Eviction that no caller waits for makes way for a cleanup that one does wait for.
func TestEvictionUnderPressureMakesWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, a, b, c := underPressure(t, CleanupManual, 900)
		defer s.sn.Begin(s.ctx)()
		letGo := s.slow("destroy")
		synctest.Wait()
		done := make(chan error, 1)
		var last Progress
		go func() { done <- s.sn.Clean(s.ctx, func(p Progress) { last = p }) }()
		synctest.Wait()
		letGo()
		require.NoError(t, <-done)
		assert.False(t, s.has(a) || s.has(b) || s.has(c), "the cleanup ends with the same sweep")
		assert.Equal(t, 2, last.Destroyed, "all but the one that the eviction was at")
		s.pool.interrupt(nil)
		assert.NotContains(t, s.log.String(), "could not be")
		s.requireInvariants()
	})
}

// A cleanup that is under way when there is pressure does its work: no second one
// begins beside it.
func TestNoEvictionBesideACleanup(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, _, b, c := underPressure(t, CleanupManual, 900)
		s.prepare("gone", "")
		s.remove("gone")
		letGo := s.slow("destroy")
		done := make(chan error, 1)
		go func() { done <- s.sn.Clean(s.ctx, nil) }()
		synctest.Wait()
		time.Sleep(pressureInterval)
		s.prepare("x", "")
		synctest.Wait()
		letGo()
		require.NoError(t, <-done)
		assert.False(t, s.has(b) || s.has(c))
		s.pool.interrupt(nil)
		s.requireInvariants()
	})
}

// A layer that is asked for while something is being evicted stays: it is in use from
// then on.
func TestEvictionKeepsWhatIsAskedForMeanwhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, a, b, c := underPressure(t, CleanupManual, 1000)
		letGo := s.slow("space") // which is asked before anything is planned
		s.prepare("x", "")
		synctest.Wait()
		_, unpacked := s.pull("default", "", chain("c"), hundred)
		assert.False(t, unpacked)
		letGo()
		synctest.Wait()
		assert.True(t, s.has(c))
		assert.False(t, s.has(b) || s.has(a), "these go in its place")
		s.pool.interrupt(nil)
		s.requireInvariants()
	})
}

// longChain is the i-th of many chain IDs.
func longChain(i int) string { return fmt.Sprintf("sha256:%064x", i) }

// What makes room for callers ends when none of them waits any more.
func TestRoomIsMadeOnlyWhileACallerWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := begin(t)
		const templates = 3 * quietBatch
		for i := range templates {
			name, _ := s.pull("default", "", longChain(i), hundred)
			s.remove(name)
		}
		s.cleanup()
		before := len(s.templates())
		s.resize(100 * templates)
		letGo := s.slow("destroy")
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
		letGo()
		s.pool.interrupt(nil)
		require.ErrorIs(t, <-errs, context.Canceled)
		synctest.Wait()
		assert.Len(t, s.templates(), before-quietBatch, "the batch that was under way")
		s.remove("x", "y") // what was begun may have come to its end
		synctest.Wait()
		s.requireInvariants()
		assert.Empty(t, heldLocks(s.sn))
	})
}

// One caller that goes takes the room from no other.
func TestRoomIsMadeForTheCallerThatIsLeft(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := begin(t)
		a, b, c := threeCached(s)
		s.resize(900)
		letGo := s.slow("destroy")
		ctx, leave := context.WithCancel(s.ctx)
		gone, stays := make(chan error, 1), make(chan error, 1)
		go func() { gone <- second(s.sn.Prepare(ctx, "x", "")) }()
		synctest.Wait()
		go func() { stays <- second(s.sn.Prepare(s.ctx, "y", "")) }()
		synctest.Wait()
		leave()
		require.ErrorIs(t, <-gone, context.Canceled)
		letGo()
		require.NoError(t, <-stays)
		assert.False(t, s.has(a) || s.has(b) || s.has(c))
		s.pool.interrupt(nil)
		s.remove("x")
		synctest.Wait()
		s.requireInvariants()
	})
}

// Close ends what makes room: neither it nor the callers wait for more than the batch
// that is under way, nor for frees.
func TestCloseEndsWhatMakesRoom(t *testing.T) {
	t.Parallel()
	for _, call := range []string{"destroy", "wait"} {
		synctest.Test(t, func(t *testing.T) {
			s := begin(t)
			key := s.backend("default", "extract-9-x "+chain("f"))
			require.NoError(t, second(s.sn.Prepare(s.ctx, key, "")))
			const templates = 3 * quietBatch
			for i := range templates {
				name, _ := s.pull("default", "", longChain(i), hundred)
				s.remove(name)
			}
			s.cleanup()
			before := len(s.templates())
			partial := s.dataset(key)
			s.resize(100 * templates)
			letGo := s.slow(call)
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
			letGo()
			for range 2 {
				err := <-errs
				require.Error(t, err)
				assert.True(t, errdefs.IsUnavailable(err) || strings.Contains(err.Error(), "is closed"), "%v", err)
			}
			require.NoError(t, <-closed)
			assert.Equal(t, began, time.Now())
			if call == "destroy" {
				assert.GreaterOrEqual(t, len(s.templates()), before-quietBatch)
			}
			s.pool.interrupt(nil)
			s.start()
			s.resize(0)
			s.requireInvariants()
		})
	}
}
