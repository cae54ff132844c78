package snapshotter

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zfstpl/zfstpl/snapshotter/internal/backoff"
	"github.com/zfstpl/zfstpl/snapshotter/internal/journal"
	"github.com/zfstpl/zfstpl/snapshotter/internal/reaper"
	"github.com/zfstpl/zfstpl/snapshotter/zfs/zfsfake"

	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/internal/record"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// recordsInPool returns the number of records in the pool.
func (s *fixture) recordsInPool() (n int) {
	s.pool.Edit(func(state *zfsfake.State) {
		for _, fs := range state.FS {
			for prop := range fs.Props {
				if rest, ok := strings.CutPrefix(prop, record.Property); ok && !strings.Contains(rest, ":") {
					n++
				}
			}
		}
	})
	return n
}

// Pending removals are written in batches: large ones while no other operation writes, small
// ones otherwise.
func TestRemovalsAreWrittenInBatches(t *testing.T) {
	t.Parallel()
	const removals = 2*journal.LargeBatch + 10
	for what, c := range map[string]struct {
		begin func(s *fixture)
		want  int
	}{
		"idle":             {func(*fixture) {}, 3},
		"during an unpack": {func(s *fixture) { s.sn.Begin(s.ctx) }, removals / journal.SmallBatch},
		"at Close":         {func(s *fixture) { s.sn.Begin(s.ctx)(); assert.NoError(s, s.sn.Close()) }, 3},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newFixture(t)
				for i := range removals {
					s.prepare(fmt.Sprint("web", i), "")
				}
				time.Sleep(reaper.QuietPeriod)
				transactions := s.pool.Count(zfsfake.Before(zfsfake.Apply))
				for i := range removals {
					s.remove(fmt.Sprint("web", i))
				}
				c.begin(s)
				s.waitForJournal()
				assert.Equal(t, c.want, transactions())
				if !s.sn.gate.closed.Load() {
					s.requireInvariants()
				}
			})
		})
	}
}

// A pause, as a cleanup makes it, ends a background flush. The rest is written afterwards.
func TestPauseEndsBackgroundFlush(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t)
		for i := range 10 * journal.SmallBatch {
			s.prepare(fmt.Sprint("web", i), "")
		}
		end := s.sn.Begin(s.ctx)
		for i := range 10 * journal.SmallBatch {
			s.remove(fmt.Sprint("web", i))
		}
		writes, busy := s.pool.Count(zfsfake.Before(zfsfake.Apply)), make(chan struct{})
		s.pool.FailAt(zfsfake.Before(zfsfake.Apply), zfsfake.Wait(busy), zfsfake.From(zfsfake.After(zfsfake.Apply)))
		time.Sleep(2 * journal.Delay)
		synctest.Wait()
		require.Equal(t, 2, writes())
		release := s.sn.journal.Pause() // as a cleanup does
		close(busy)
		s.waitForJournal()
		assert.Equal(t, 2, writes())
		release()
		s.waitForJournal()
		assert.Equal(t, 10, writes(), "the rest is written")
		end()
		s.requireInvariants()
	})
}

// A cleanup does not write the removal of a runtime that it destroys. It writes that of one
// that is busy.
func TestCleanupSkipsRemovalsOfDestroyedDatasets(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t, keepCached(time.Hour))
		s.layer("base", "", "")
		for _, key := range []string{"web", "busy"} {
			s.prepare(key, "base")
		}
		busy := s.dataset("busy")
		s.pool.Edit(func(state *zfsfake.State) { state.Mounted[busy] = true })
		writes := s.pool.Count(zfsfake.Before(zfsfake.Apply))
		s.remove("web")
		require.NoError(t, s.sn.Cleanup(s.ctx))
		assert.Zero(t, writes())
		s.remove("busy")
		require.NoError(t, s.sn.Cleanup(s.ctx))
		assert.Equal(t, 1, writes(), "the runtime is busy, and its removal is written")
		assert.Equal(t, 1, s.recordsInPool())
		s.pool.Edit(func(state *zfsfake.State) { clear(state.Mounted) })
	})
}

// A removal that cannot be written stays in the journal until the pool accepts it.
func TestRemovalsStayUntilPoolAcceptsThem(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t, keepCached(0))
		s.layer("base", "", "")
		s.prepare("web", "base")
		end := s.pool.FailAt(zfsfake.Before(zfsfake.Apply, zfsfake.Destroy), zfsfake.Refuse(zfs.ErrSuspended))
		s.remove("web", "base")
		time.Sleep(journal.Delay)
		synctest.Wait()
		assert.Equal(t, 2, s.recordsInPool())
		assert.ErrorIs(t, s.sn.Cleanup(s.ctx), errdefs.ErrUnavailable)
		assert.Empty(t, s.walk())
		assert.Equal(t, 2, s.recordsInPool(), "no dataset with a record is destroyed")
		end()
		s.requireInvariants()
		assert.Zero(t, s.recordsInPool())
		assert.Len(t, s.datasets(), 1)
	})
}

// If another program destroyed the dataset, its removal is dropped and the others are written.
func TestRemovalOfMissingDatasetIsDropped(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	for _, key := range []string{"a", "b", "c"} {
		s.prepare(key, "")
	}
	gone := s.dataset("b")
	s.pool.Edit(func(state *zfsfake.State) { delete(state.FS, gone) })
	s.remove("a", "b", "c")
	s.cleanup()
	assert.Zero(t, s.recordsInPool())
	assert.Len(t, s.datasets(), 1)
	s.requireInvariants()
}

// While the pool fails, the journal has one retry at a time, independent of the number of
// removals.
func TestJournalHasOneRetryAtATime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t, settings(func(c *Config) { c.Cleanup = CleanupManual }))
		for i := range 50 {
			s.prepare(fmt.Sprint(i), "")
		}
		s.waitForJournal()
		applies := s.pool.Count(zfsfake.Before(zfsfake.Apply))
		end := s.pool.FailAt(zfsfake.Before(zfsfake.Call), zfsfake.Refuse(zfs.ErrSuspended))
		for i := range 50 {
			s.remove(fmt.Sprint(i))
			time.Sleep(2 * time.Second)
		}
		time.Sleep(time.Hour)
		before := applies()
		time.Sleep(time.Hour)
		assert.LessOrEqual(t, applies()-before, 10, "attempts in an hour without a removal")
		end()
	})
}

// A flush for which a caller waits ends the background flush and writes large batches.
func TestFlushEndsBackgroundFlush(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	const removals = journal.SmallBatch + 2*journal.LargeBatch
	for i := range removals {
		s.prepare(fmt.Sprint("web", i), "")
	}
	defer s.sn.Begin(s.ctx)()
	writes := s.pool.Count(zfsfake.Before(zfsfake.Apply))
	began, gate := make(chan struct{}), make(chan struct{})
	s.pool.FailAt(zfsfake.Before(zfsfake.Apply), zfsfake.Do(func() error {
		close(began)
		<-gate
		return nil
	}), zfsfake.Once())
	for i := range removals {
		s.remove(fmt.Sprint("web", i))
	}
	<-began
	flushed := make(chan error, 1)
	go func() { flushed <- s.sn.journal.FlushPaced(s.ctx, true) }()
	require.Eventually(t, func() bool { return s.sn.journal.IsAwaited() }, 10*time.Second, time.Millisecond)
	close(gate)
	require.NoError(t, <-flushed)
	assert.Equal(t, 3, writes())
	s.requireInvariants()
}

// Removals that could not be written are retried with backoff, even without another removal:
// a crash before they are in the pool would undo them.
func TestJournalRetriesWithBackoff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t)
		s.prepare("web", "")
		var tries []time.Duration
		began := time.Now()
		end := s.pool.FailAt(zfsfake.Before(zfsfake.Apply), zfsfake.Do(func() error {
			tries = append(tries, time.Since(began).Round(time.Second))
			return zfsfake.Error("apply", "x", zfs.ErrNoSpace)
		}))
		s.remove("web")
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Greater(t, len(tries), 10)
		assert.LessOrEqual(t, tries[3], 20*time.Second, "%v", tries)
		assert.Less(t, len(tries), 20, "%v", tries)
		assert.Equal(t, 1, s.recordsInPool())
		end()
		time.Sleep(backoff.Max + time.Second)
		synctest.Wait()
		assert.Zero(t, s.recordsInPool())
		s.requireInvariants()
	})
}
