package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zfstpl/zfstpl/integration/model"
	"github.com/zfstpl/zfstpl/snapshotter/internal/backoff"
	"github.com/zfstpl/zfstpl/snapshotter/internal/journal"
	"github.com/zfstpl/zfstpl/snapshotter/zfs/zfsfake"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/errkind"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// unlisted makes the pool refuse listings until restore is called, so that no operation finds
// out what a killed command has done.
func (s *fixture) unlisted() (restore func()) {
	end := s.pool.FailAt(zfsfake.Before(zfsfake.List), zfsfake.Refuse(zfs.ErrSuspended), zfsfake.Optional())
	return func() { end() }
}

// applyThenKill runs do. The next apply of the pool succeeds but returns ErrKilled, and the
// pool refuses listings.
func (s *fixture) applyThenKill(do func() error) {
	s.Helper()
	defer s.unlisted()()
	end := s.pool.FailAt(zfsfake.After(zfsfake.Apply), zfsfake.Kill())
	require.ErrorIs(s, do(), zfsfake.ErrKilled)
	end()
}

// A killed command may have applied its list in part or in whole. The operation has failed
// for the caller, and it is rolled back in the pool by the next cleanup at the latest. The
// rollback does not affect later operations.
func TestOperationOfKilledCommandIsRolledBack(t *testing.T) {
	t.Parallel()
	labels := func(s *fixture, value string) error {
		return second(s.sn.Update(s.ctx, snapshots.Info{Name: "web", Labels: map[string]string{"a": value}}))
	}
	key := "default/8/extract-1-x " + chain("a")
	join := func(s *fixture) error { return s.sn.Commit(s.ctx, "default/9/"+chain("a"), key) }
	for what, c := range map[string]struct{ do, then func(s *fixture) error }{
		"prepare, then again": {
			func(s *fixture) error { return second(s.sn.Prepare(s.ctx, "x", "base")) },
			func(s *fixture) error { return second(s.sn.Prepare(s.ctx, "x", "")) },
		},
		"view, then again": {
			func(s *fixture) error { return second(s.sn.View(s.ctx, "x", "base")) },
			func(s *fixture) error { return second(s.sn.View(s.ctx, "x", "")) },
		},
		"update, then again":    {func(s *fixture) error { return labels(s, "1") }, func(s *fixture) error { return labels(s, "2") }},
		"update, then remove":   {func(s *fixture) error { return labels(s, "1") }, func(s *fixture) error { return s.sn.Remove(s.ctx, "web") }},
		"update, then commit":   {func(s *fixture) error { return labels(s, "1") }, func(s *fixture) error { return s.sn.Commit(s.ctx, "saved", "web") }},
		"join, then again":      {join, join},
		"join, then remove":     {join, func(s *fixture) error { return s.sn.Remove(s.ctx, key) }},
		"join, then as another": {join, func(s *fixture) error { return s.sn.Commit(s.ctx, "default/9/mine", key) }},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			start := func() *fixture {
				s := newFixture(t, torn)
				s.layer("base", "", "b;")
				s.prepare("web", "base", label("a", "0"))
				s.prepare(key, "")
				s.write(key, "mine;")
				s.pull("default", "", chain("a"), "a;")
				s.cleanup()
				return s
			}
			whole := start()
			require.NoError(t, c.then(whole))
			after := whole.visible()
			for _, cleanup := range []bool{true, false} {
				for cut := range zfsfake.Each(t, zfsfake.Before(zfsfake.Transaction)) {
					s := start()
					before := s.visible()
					s.killedOrDone(cut, c.do)
					_, err := s.sn.Stat(s.ctx, key) // after a commit whose outcome is not known
					require.NoError(t, err)
					if cleanup {
						s.requireInvariants()
					}
					require.Empty(t, model.Differences(before, s.visible()))
					require.NoError(t, c.then(s), "killed %s", cut)
					s.requireInvariants()
					require.Empty(t, model.Differences(after, s.visible()), "killed %s", cut)
					s.crash()
					require.Empty(t, model.Differences(after, s.visible()), "killed %s, then a crash", cut)
				}
			}
		})
	}
}

// killedOrDone kills do at a cut. If do does not reach it, its apply returns ErrKilled after it
// has succeeded. The pool refuses listings.
func (s *fixture) killedOrDone(cut *zfsfake.Cut, do func(s *fixture) error) {
	s.Helper()
	defer s.unlisted()()
	end := s.pool.FailAt(cut.Point, zfsfake.Kill())
	done := s.pool.FailAt(zfsfake.After(zfsfake.Apply), zfsfake.Do(func() error {
		if cut.Reached() {
			return nil
		}
		return zfsfake.ErrKilled
	}), zfsfake.Once(), zfsfake.Optional())
	require.ErrorIs(s, do(s), zfsfake.ErrKilled)
	end()
	done()
}

// The write of a record for a cached layer is killed. The next pull reuses the layer and
// makes one record.
func TestCachedLayerIsReusedAfterKilledPrepare(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	name, _ := s.pull("default", "", chain("a"), "a;")
	s.remove(name)
	s.cleanup()
	s.applyThenKill(func() error {
		return second(s.sn.Prepare(s.ctx, "default/8/extract-1-x "+chain("a"), "", ref(chain("a"))))
	})
	assert.Empty(t, s.walk())
	s.requireInvariants()
	assert.Zero(t, s.recordsInPool())
	_, unpacked := s.pull("default", "", chain("a"), "")
	assert.False(t, unpacked)
	s.requireInvariants()
}

// While the rollback of an update fails, other changes of the dataset fail.
func TestOperationsFailWhileRollbackFails(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.prepare("web", "")
	update := func() error {
		return second(s.sn.Update(s.ctx, snapshots.Info{Name: "web", Labels: map[string]string{"a": "b"}}))
	}
	s.applyThenKill(update)
	end := s.pool.FailAt(zfsfake.Before(zfsfake.Call), zfsfake.Refuse(zfs.ErrSuspended))
	require.ErrorIs(t, update(), zfs.ErrSuspended)
	require.ErrorIs(t, s.sn.Commit(s.ctx, "saved", "web"), zfs.ErrSuspended)
	end()
	assert.Empty(t, s.stat("web").Labels)
	require.NoError(t, update())
	assert.Equal(t, "b", s.stat("web").Labels["a"])
	s.requireInvariants()
}

// If there is no space for a rollback, a cleanup frees space first.
func TestCleanupFreesSpaceForRollback(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // in a bubble no timer flushes the journal
		s := newFixture(t)
		s.prepare("web", "")
		s.prepare("gone", "")
		s.remove("gone")
		s.applyThenKill(func() error {
			return second(s.sn.Update(s.ctx, snapshots.Info{Name: "web", Labels: map[string]string{"a": "b"}}))
		})
		end := s.pool.FailAt(zfsfake.Before(zfsfake.Apply), zfsfake.Refuse(zfs.ErrNoSpace), zfsfake.Until(zfsfake.Before(zfsfake.Destroy)))
		s.cleanup()
		end()
		s.requireInvariants()
		s.crash()
		assert.Empty(t, s.stat("web").Labels)
	})
}

// A repair follows many removals in the journal. The first batch is written and the second
// one fails. The barrier still waits for the repair.
func TestBarrierWaitsForRepairAfterManyRemovals(t *testing.T) {
	t.Parallel()
	synctest.Test(t, repairAfterManyRemovals) // in a bubble no timer flushes the journal
}

func repairAfterManyRemovals(t *testing.T) {
	s := newFixture(t)
	for i := range journal.LargeBatch {
		s.prepare(fmt.Sprint("web", i), "")
	}
	s.prepare("web", "")
	for i := range journal.LargeBatch {
		s.remove(fmt.Sprint("web", i))
	}
	s.applyThenKill(func() error {
		return second(s.sn.Update(s.ctx, snapshots.Info{Name: "web", Labels: map[string]string{"a": "b"}}))
	})
	end := s.pool.FailAt(zfsfake.Before(zfsfake.Apply), zfsfake.Refuse(zfs.ErrSuspended), zfsfake.From(zfsfake.After(zfsfake.Apply)))
	require.ErrorIs(t, s.sn.journal.Flush(s.ctx), zfs.ErrSuspended)
	end()
	s.commit("saved", "web")
	s.requireInvariants()
	assert.Empty(t, s.stat("saved").Labels)
}

func TestErrorsAreAmbiguousWithoutAKind(t *testing.T) {
	t.Parallel()
	busy, unknown := zfsfake.Error("set", "x", zfs.ErrBusy), zfsfake.Error("set", "x", nil)
	for _, c := range []struct {
		err  error
		want bool
	}{
		{nil, false}, {busy, false}, {errors.Join(busy, nil), false}, {unknown, true}, {zfsfake.ErrKilled, true},
		{errors.Join(busy, unknown), true}, {errors.Join(busy, busy), true},
	} {
		assert.Equal(t, c.want, errkind.IsAmbiguous(c.err), "%v", c.err)
	}
}

// The command that destroys a template is killed after it has destroyed @extracted. The next
// pull unpacks the layer again.
func TestLayerIsUnpackedAgainAfterKilledDestroy(t *testing.T) {
	t.Parallel()
	for what, cancelled := range map[string]bool{"the caller waits": false, "the context is cancelled": true} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newFixture(t, keepCached(0))
				name, _ := s.pull("default", "", chain("a"), "x;")
				s.cleanup()
				template := s.templateOf(name)
				s.remove(name)
				ctx, cancel := context.WithCancel(s.ctx)
				defer cancel()
				s.pool.FailAt(zfsfake.Before(zfsfake.Destroy), zfsfake.Do(func() error {
					if cancelled {
						cancel()
					}
					s.pool.EditFS(template, func(fs *zfsfake.FS) { delete(fs.Snaps, layout.Extracted) })
					return zfsfake.ErrKilled
				}), zfsfake.Once())
				require.Error(t, s.sn.Cleanup(ctx))
				synctest.Wait() // for the operation that continues after the cancellation

				name, unpacked := s.pull("default", "", chain("a"), "x;")
				assert.True(t, unpacked)
				s.prepare("web", name)
				assert.Equal(t, "x;", s.visible()["web"].Content)
			})
		})
	}
}

// A release that marked garbage was killed after a rollback restored the record of a runtime
// and before it removed the mark. The record counts.
func TestRecordOverridesGarbageMarkOfEarlierRelease(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.prepare("web", "")
	s.write("web", "x;")
	for prop, value := range marked {
		require.NoError(t, s.pool.Apply(s.ctx, zfs.Set(s.dataset("web"), prop, value)))
	}
	s.crash()
	s.cleanup()
	assert.Equal(t, "x;", s.visible()["web"].Content)
	s.restart()
	s.requireInvariants()
	s.remove("web")
	s.cleanup()
	assert.Len(t, s.datasets(), 1)
}

// A failed call has written the cleanup mark nevertheless. Later marks are still written.
func TestMarkIsWrittenAfterAmbiguousFailure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t)
		s.prepare("web", "")
		s.remove("web")
		s.waitForJournal()
		require.True(t, s.marked().IsDue(time.Now()))
		s.pool.FailAt(zfsfake.After(zfsfake.Mark), zfsfake.Kill())
		s.cleanup()
		s.waitForJournal()
		require.Equal(t, layout.CleanupMark{}, s.marked(), "no cleanup is due")
		s.prepare("db", "")
		db := s.dataset("db")
		s.mount(db)
		s.remove("db")
		time.Sleep(3 * backoff.Max)
		synctest.Wait()
		require.True(t, s.sn.index.IsGarbage(db))
		assert.True(t, s.marked().IsDue(time.Now()))
	})
}

// A journal that cannot be written because the pool is full does not prevent a reclaim.
func TestReclaimWorksWhileJournalCannotBeWritten(t *testing.T) {
	t.Parallel()
	for what, queued := range map[string]func(s *fixture){
		"a removal": func(s *fixture) { s.remove("gone") },
		"a repair": func(s *fixture) {
			s.applyThenKill(func() error {
				return second(s.sn.Update(s.ctx, snapshots.Info{Name: "gone", Labels: map[string]string{"a": "b"}}))
			})
		},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newFixture(t)
				a, b, c := threeCached(s)
				s.layer("base", "", "")
				s.view("gone", "base")
				s.cleanup()
				queued(s) // there is no garbage
				end := s.pool.FailAt(zfsfake.Before(zfsfake.Apply), zfsfake.Refuse(zfs.ErrNoSpace), zfsfake.Until(zfsfake.Before(zfsfake.Destroy)))
				assert.NoError(t, second(s.sn.Prepare(s.ctx, "x", "")))
				assert.False(t, s.has(a) || s.has(b) || s.has(c), "cached templates are destroyed")
				end()
			})
		})
	}
}

// An operation on a dataset with a pending repair reclaims space if the repair does not fit.
func TestBarrierReclaimsSpace(t *testing.T) {
	t.Parallel()
	for what, do := range map[string]func(s *fixture) error{
		"commit": func(s *fixture) error { return s.sn.Commit(s.ctx, "saved", "web") },
		"update": func(s *fixture) error {
			return second(s.sn.Update(s.ctx, snapshots.Info{Name: "web", Labels: map[string]string{"a": "c"}}))
		},
		"renew": func(s *fixture) error {
			_, _, err := s.sn.Renew(s.ctx, s.dataset("default/8/extract-1-x "+chain("z")), zfs.ErrNoSpace)
			return err
		},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newFixture(t)
				threeCached(s)
				s.prepare("default/8/extract-1-x "+chain("z"), "", ref(chain("z")))
				s.prepare("gone", "")
				s.remove("gone") // garbage, whose destruction frees space
				s.applyThenKill(func() error {
					return second(s.sn.Update(s.ctx, snapshots.Info{Name: "web", Labels: map[string]string{"a": "b"}}))
				})
				end := s.pool.FailAt(zfsfake.Before(zfsfake.Apply), zfsfake.Refuse(zfs.ErrNoSpace), zfsfake.Until(zfsfake.Before(zfsfake.Destroy)))
				assert.NoError(t, do(s))
				end()
			})
		})
	}
}

// A killed commit that left nothing returns its error without another write, which the pool
// could block.
func TestKilledCommitThatLeftNothingWritesNothing(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.prepare("web", "")
	writes := s.pool.Count(zfsfake.Before(zfsfake.Apply, zfsfake.Destroy, zfsfake.DestroySnapshot))
	s.pool.FailAt(zfsfake.Before(zfsfake.Apply), zfsfake.Kill())
	require.ErrorIs(t, s.sn.Commit(s.ctx, "saved", "web"), zfsfake.ErrKilled)
	assert.Equal(t, 1, writes())
	s.requireInvariants()
	assert.Equal(t, []string{"web"}, s.names())
}

// If the pool blocks while a killed commit is undone, the commit returns when its context ends.
// The commit is undone when the pool continues.
func TestKilledCommitReturnsWhilePoolBlocks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t, torn)
		s.prepare("web", "")
		s.pool.FailAt(zfsfake.After(zfsfake.Clone), zfsfake.Kill())
		resume := s.block(zfsfake.Destroy)
		ctx, cancel := context.WithCancel(s.ctx)
		done := make(chan error, 1)
		go func() { done <- s.sn.Commit(ctx, "saved", "web") }()
		synctest.Wait()
		require.Empty(t, done)
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
		resume()
		synctest.Wait()
		s.requireInvariants()
		assert.Equal(t, []string{"web"}, s.names())
	})
}
