package snapshotter

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// recordsInPool counts the records the pool holds.
func (s *fixture) recordsInPool() (n int) {
	s.pool.edit(func(state *fakeState) {
		for _, fs := range state.fs {
			for prop := range fs.props {
				if rest, ok := strings.CutPrefix(prop, propRecord); ok && !strings.Contains(rest, ":") {
					n++
				}
			}
		}
	})
	return n
}

func TestRemoveIsWrittenAfterJournalDelay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t)
		s.layer("base", "", "")
		s.prepare("web", "base")
		s.remove("web", "base")
		assert.Empty(t, s.walk())
		assert.Equal(t, 2, s.recordsInPool())
		time.Sleep(journalDelay)
		synctest.Wait()
		assert.Zero(t, s.recordsInPool(), "without a cleanup")
	})
}

// Children first, containerd says; whoever does not is told so, and nothing of
// the snapshot is lost.
func TestRemoveOfParentIsRefused(t *testing.T) {
	t.Parallel()
	s := newFixture(t, keepCached(0))
	s.layer("base", "", "")
	s.layer("app", "base", "")
	s.view("look", "base")
	s.prepare("web", "app")
	for _, child := range []string{"look", "web", "app"} {
		require.ErrorIs(t, s.sn.Remove(s.ctx, "base"), errdefs.ErrFailedPrecondition)
		s.cleanup()
		s.remove(child)
	}
	s.remove("base", "base")
	s.requireInvariants()
	assert.Len(t, s.datasets(), 1)
}

// The machine dies before a removal is in the pool: the snapshot is back.
func TestUnwrittenRemoveIsUndoneByCrash(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.layer("base", "", "b;")
	s.prepare("web", "base")
	s.view("look", "base")
	before := s.visible()
	s.remove("web", "look", "base")
	s.crash()
	assert.Equal(t, before, s.visible())
	s.requireInvariants()
}

// A key that is used again before its removal is in the pool: after a crash
// the newer one is there, and the older one is trash.
func TestReusedKeySurvivesCrashBeforeRemovalIsWritten(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.layer("base", "", "b;")
	s.prepare("web", "base")
	s.write("web", "old;")
	s.view("look", "base", label("age", "old"))
	s.layer("saved", "base", "old;")
	old := []string{s.dataset("web"), s.templateOf("saved")}
	s.remove("web", "look", "saved")
	s.prepare("web", "")
	s.write("web", "new;")
	s.view("look", "base", label("age", "new"))
	s.layer("saved", "base", "new;")
	before := s.visible()
	s.crash()
	assert.Equal(t, before, s.visible())
	assert.Equal(t, "new;", before["web"].Content)
	s.requireInvariants()
	for _, dataset := range old {
		assert.NotContains(t, s.datasets(), dataset)
	}
	s.remove("web", "look", "saved")
	s.crash()
	s.requireInvariants()
}

// A parent removed, and its name given to an active snapshot: after a crash
// its child, which was removed too, may not hang on what it never stood on.
func TestChildOfLostParentIsShownWithoutParent(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.layer("base", "", "b;")
	s.prepare("web", "base")
	s.write("web", "w;")
	s.remove("web", "base")
	s.prepare("base", "")
	s.crash()
	assert.Equal(t, map[string]seen{
		"base": {Kind: snapshots.KindActive},
		"web":  {Kind: snapshots.KindActive, Content: "b;w;"},
	}, s.visible(), "shown without a parent, so that containerd can remove it")
	assert.Contains(t, s.log.String(), "parent of snapshot is missing")
	s.cleanup()
	assert.Equal(t, "b;w;", s.visible()["web"].Content)
	s.commit("saved", "web")
	assert.Equal(t, "b;w;", s.visible()["saved"].Content)
	s.remove("saved", "base")
	s.requireInvariants()
}

// Removals that wait are written together: many of them in a transaction when nobody
// is at work, few when somebody is, whose own would have to wait for theirs.
func TestRemovalsAreWrittenInBatches(t *testing.T) {
	t.Parallel()
	const removals = 2*largeBatch + 10
	for what, c := range map[string]struct {
		begin func(s *fixture)
		want  int
	}{
		"nobody is at work":   {func(*fixture) {}, 3},
		"somebody unpacks":    {func(s *fixture) { s.sn.Begin(s.ctx) }, removals / smallBatch},
		"the daemon is ended": {func(s *fixture) { s.sn.Begin(s.ctx)(); assert.NoError(s, s.sn.Close()) }, 3},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newFixture(t)
				for i := range removals {
					s.prepare(fmt.Sprint("web", i), "")
				}
				time.Sleep(quietPeriod)
				transactions := 0
				s.pool.interrupt(func(call string) error {
					if call == "apply" {
						transactions++
					}
					return nil
				})
				for i := range removals {
					s.remove(fmt.Sprint("web", i))
				}
				c.begin(s)
				s.waitForJournal()
				assert.Equal(t, c.want, transactions)
				s.pool.interrupt(nil)
				if !s.sn.closed.Load() {
					s.requireInvariants()
				}
			})
		})
	}
}

// A cleanup that begins while removals are written makes the rest of them needless.
func TestPauseEndsBackgroundFlush(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t)
		for i := range 10 * smallBatch {
			s.prepare(fmt.Sprint("web", i), "")
		}
		end := s.sn.Begin(s.ctx)
		for i := range 10 * smallBatch {
			s.remove(fmt.Sprint("web", i))
		}
		writes, busy := 0, make(chan struct{})
		s.pool.interrupt(func(call string) error {
			if call != "apply" {
				return nil
			}
			if writes++; writes == 2 {
				<-busy
			}
			return nil
		})
		time.Sleep(2 * journalDelay)
		synctest.Wait()
		require.Equal(t, 2, writes)
		release := s.sn.journal.pause() // as a cleanup does
		close(busy)
		s.waitForJournal()
		assert.Equal(t, 2, writes)
		release()
		s.waitForJournal()
		assert.Equal(t, 10, writes, "what it left is written")
		end()
		s.pool.interrupt(nil)
		s.requireInvariants()
	})
}

// What is destroyed at once is removed by that, and need not be written before.
func TestCleanupSkipsRemovalsOfDestroyedDatasets(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t, keepCached(time.Hour))
		s.layer("base", "", "")
		for _, key := range []string{"web", "busy"} {
			s.prepare(key, "base")
		}
		busy := s.dataset("busy")
		s.pool.edit(func(state *fakeState) { state.mounted[busy] = true })
		writes := 0
		s.pool.before = func(call string) error {
			if call == "apply" {
				writes++
			}
			return nil
		}
		s.remove("web")
		require.NoError(t, s.sn.Cleanup(s.ctx))
		assert.Zero(t, writes)
		s.remove("busy")
		require.NoError(t, s.sn.Cleanup(s.ctx))
		assert.Equal(t, 1, writes, "it is still there, and its removal is written")
		assert.Equal(t, 1, s.recordsInPool())
		s.pool.edit(func(state *fakeState) { clear(state.mounted) })
	})
}

// A removal that cannot be written stays, in its order, until it can.
func TestRemovalsStayUntilPoolAcceptsThem(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t, keepCached(0))
		s.layer("base", "", "")
		s.prepare("web", "base")
		var broken error // of the interface, to be nil later
		broken = fakeError("set", "x", zfs.ErrSuspended)
		s.pool.before = func(call string) error {
			if call == "apply" || call == "destroy" {
				return broken
			}
			return nil
		}
		s.remove("web", "base")
		time.Sleep(journalDelay)
		synctest.Wait()
		assert.Equal(t, 2, s.recordsInPool())
		assert.ErrorIs(t, s.sn.Cleanup(s.ctx), errdefs.ErrUnavailable)
		assert.Empty(t, s.walk())
		assert.Equal(t, 2, s.recordsInPool(), "and nothing was destroyed that has one")
		broken = nil
		s.requireInvariants()
		assert.Zero(t, s.recordsInPool())
		assert.Len(t, s.datasets(), 1)
	})
}

// Somebody destroyed the dataset: there is nothing left to write, and the
// other removals are not kept waiting for it.
func TestRemovalOfMissingDatasetIsDropped(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	for _, key := range []string{"a", "b", "c"} {
		s.prepare(key, "")
	}
	gone := s.dataset("b")
	s.pool.edit(func(state *fakeState) { delete(state.fs, gone) })
	s.remove("a", "b", "c")
	s.cleanup()
	assert.Zero(t, s.recordsInPool())
	assert.Len(t, s.datasets(), 1)
	s.requireInvariants()
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

// The daemon dies while a cleanup destroys a template whose removal is not written: it
// has no snapshot any more. With its record it would be taken for one that a stranger
// did that to, and stay, with all it stands on.
func TestTemplateWithoutSnapshotIsDestroyedAfterCrash(t *testing.T) {
	t.Parallel()
	for what, dies := range map[string]func(s *fixture, template string){
		"killed in the program": func(s *fixture, template string) {
			s.pool.interrupt(func(call string) error {
				if call != "destroy" {
					return nil
				}
				s.pool.interrupt(nil)
				s.pool.editFS(template, func(fs *fakeFS) { delete(fs.snaps, layout.Extracted) })
				s.pool.edit(func(*fakeState) { s.pool.crashAfter = 0 })
				return errKilled
			})
		},
		"mounted, in a full pool, and no power": func(s *fixture, template string) {
			s.mount(template)
			s.pool.edit(func(state *fakeState) { state.full = true })
			s.pool.interrupt(func(call string) error {
				if call == "destroy" {
					s.pool.edit(func(*fakeState) { s.pool.crashAfter = 1 })
				}
				return nil
			})
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newFixture(t) // keeps layers for ever; what is opaque, as of BuildKit, goes at once
				s.layer("base", "", "b;")
				s.layer("built", "base", "x;")
				s.cleanup()
				template := s.templateOf("built")
				s.remove("built", "base")
				dies(s, template)
				_ = s.sn.Cleanup(s.ctx)
				s.pool.interrupt(nil)
				s.crash()
				s.pool.crashAfter = -1
				for range 3 { // containerd's next collections, and starts
					s.remove("built", "base")
					s.cleanup()
					s.waitForRetries()
					s.restart()
				}
				assert.Empty(t, s.names())
				assert.Equal(t, []string{s.base.Empty().Dataset()}, s.datasets(), "nothing is leaked: %s", s.log)
			})
		})
	}
}

// In a pool that fails there is one retry at a time, however much was removed meanwhile.
func TestJournalHasOneRetryAtATime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t, settings(func(c *Config) { c.Cleanup = CleanupManual }))
		for i := range 50 {
			s.prepare(fmt.Sprint(i), "")
		}
		s.waitForJournal()
		var applies atomic.Int64
		s.pool.interrupt(func(call string) error {
			if call == "apply" {
				applies.Add(1)
			}
			return fakeError(call, "x", zfs.ErrSuspended)
		})
		for i := range 50 {
			s.remove(fmt.Sprint(i))
			time.Sleep(2 * time.Second)
		}
		time.Sleep(time.Hour)
		applies.Store(0)
		time.Sleep(time.Hour)
		assert.LessOrEqual(t, applies.Load(), int64(10), "attempts in an hour in which nobody did anything")
		s.pool.interrupt(nil)
	})
}

// Whoever waits until removals are written does not wait at the pace of what nobody
// waits for.
func TestFlushEndsBackgroundFlush(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	const removals = smallBatch + 2*largeBatch
	for i := range removals {
		s.prepare(fmt.Sprint("web", i), "")
	}
	defer s.sn.Begin(s.ctx)()
	var writes atomic.Int64
	began, gate := make(chan struct{}), make(chan struct{})
	s.pool.interrupt(func(call string) error {
		if call == "apply" && writes.Add(1) == 1 {
			close(began)
			<-gate
		}
		return nil
	})
	for i := range removals {
		s.remove(fmt.Sprint("web", i))
	}
	<-began
	flushed := make(chan error, 1)
	go func() { flushed <- s.sn.journal.flushPaced(s.ctx, true) }()
	require.Eventually(t, func() bool { return s.sn.journal.waiters.Load() == 1 }, 10*time.Second, time.Millisecond)
	close(gate)
	require.NoError(t, <-flushed)
	assert.EqualValues(t, 3, writes.Load())
	s.pool.interrupt(nil)
	s.requireInvariants()
}

// Removals that could not be written are tried again soon, and less and less often, also
// when no other comes: until they are in the pool a crash would bring them back.
func TestJournalRetriesWithBackoff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t)
		s.prepare("web", "")
		var tries []time.Duration
		began := time.Now()
		s.pool.interrupt(func(call string) error {
			if call != "apply" {
				return nil
			}
			tries = append(tries, time.Since(began).Round(time.Second))
			return fakeError("apply", "x", zfs.ErrNoSpace)
		})
		s.remove("web")
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Greater(t, len(tries), 10)
		assert.LessOrEqual(t, tries[3], 20*time.Second, "%v", tries)
		assert.Less(t, len(tries), 20, "%v", tries)
		assert.Equal(t, 1, s.recordsInPool())
		s.pool.interrupt(nil)
		time.Sleep(maxBackoff + time.Second)
		synctest.Wait()
		assert.Zero(t, s.recordsInPool())
		s.requireInvariants()
	})
}
