package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
	"github.com/zfstpl/zfstpl/snapshotter/zfs/zfsfake"
)

// An operation that runs out of space is retried once, after all cached templates were
// evicted.
func TestOutOfSpaceIsRetriedOnceAfterReclaim(t *testing.T) {
	t.Parallel()
	for what, do := range map[string]func(s *fixture) error{
		"prepare":                 func(s *fixture) error { return second(s.sn.Prepare(s.ctx, "x", "base")) },
		"commit":                  func(s *fixture) error { return s.sn.Commit(s.ctx, "x", "web") },
		"commit of a mounted one": func(s *fixture) error { return s.commitMounted("x", "web") },
	} {
		for _, option := range []func(*fixture){func(*fixture) {}, inSteps} {
			synctest.Test(t, func(t *testing.T) {
				s := newFixture(t, option)
				s.layer("base", "", "")
				a, b, c := threeCached(s)
				s.resize(900)
				waits := s.pool.Count(zfsfake.Before(zfsfake.WaitFreed))
				require.NoError(t, do(s), what)
				assert.False(t, s.has(a) || s.has(b) || s.has(c), what)
				assert.Equal(t, 1, waits(), "the reclaim waits until ZFS has freed the datasets")
				assert.Equal(t, 3, strings.Count(s.log.String(), "evicted cached template"))
				s.pool.Edit(func(state *zfsfake.State) { clear(state.Mounted) })
				s.requireInvariants()
			})
			synctest.Test(t, func(t *testing.T) {
				s := newFixture(t, option)
				s.layer("base", "", "")
				threeCached(s)
				s.resize(600)
				waits, before := s.pool.Count(zfsfake.Before(zfsfake.WaitFreed)), s.names()
				err := do(s)
				require.ErrorIs(t, err, errdefs.ErrResourceExhausted, what)
				assert.ErrorContains(t, err, "tried twice: 3 cached templates of 300B were evicted, and pool tank is 100% full (600B of 600B)")
				assert.Equal(t, before, s.names())
				assert.Equal(t, 1, waits())
				err = do(s)
				assert.ErrorContains(t, err, "no cached template could be evicted")
				s.resize(0)
				s.pool.Edit(func(state *zfsfake.State) { clear(state.Mounted) })
				s.requireInvariants()
				require.NoError(t, do(s), "succeeds when there is space")
			})
		}
	}
}

// While the pool has a checkpoint a full pool evicts nothing, because that frees nothing.
// A full quota still does: it does not count the checkpoint.
func TestCheckpointPreventsEvictionForThePoolOnly(t *testing.T) {
	t.Parallel()
	for _, quota := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := newFixture(t)
			s.layer("base", "", "")
			a, b, c := threeCached(s)
			s.resize(900)
			if quota {
				s.quota("tank/z", "899")
			}
			s.pool.Edit(func(state *zfsfake.State) { state.Checkpoint = true })
			err := second(s.sn.Prepare(s.ctx, "x", "base"))
			if quota {
				require.NoError(t, err) // the fake pool frees destroyed datasets in spite of a checkpoint
				assert.False(t, s.has(a) || s.has(b) || s.has(c))
				return
			}
			require.ErrorIs(t, err, errdefs.ErrResourceExhausted)
			assert.ErrorContains(t, err, "no cached template could be evicted")
			assert.ErrorContains(t, err, "zpool checkpoint -d tank")
			assert.True(t, s.has(a) && s.has(b) && s.has(c))
			s.resize(0)
			s.requireInvariants()
		})
	}
}

// An operation that may have left a part of its work is rolled back, not retried: a retry
// would find the remains of the first attempt.
func TestOutOfSpaceWithUnknownOutcomeIsRolledBack(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	unknown := errors.Join(zfsfake.Error("clone", "x", zfs.ErrNoSpace), errors.New("the rollback failed"))
	s.pool.FailAt(zfsfake.After(zfsfake.Apply), zfsfake.Return(unknown), zfsfake.Once())
	err := second(s.sn.Prepare(s.ctx, "web", ""))
	require.ErrorIs(t, err, errdefs.ErrResourceExhausted)
	assert.ErrorContains(t, err, "the rollback failed")
	assert.Empty(t, s.names())
	s.requireInvariants()
	s.prepare("web", "")
	s.requireInvariants()
}

// commitMounted commits a mounted snapshot.
func (s *fixture) commitMounted(name, key string) error {
	dataset := s.dataset(key)
	s.pool.Edit(func(state *zfsfake.State) { state.Mounted[dataset] = true })
	return s.sn.Commit(s.ctx, name, key)
}

// All operations that run out of space during a reclaim share it.
func TestConcurrentOperationsShareAReclaim(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t)
		threeCached(s)
		s.resize(900)
		const callers = 8
		var failed atomic.Int32
		all := make(chan struct{})
		waits := s.pool.Count(zfsfake.Before(zfsfake.WaitFreed))
		s.pool.FailAt(zfsfake.Before(zfsfake.Apply), zfsfake.Do(func() error {
			if failed.Add(1) == callers {
				close(all)
			}
			return nil
		}))
		end := s.pool.FailAt(zfsfake.Before(zfsfake.Destroy), zfsfake.Do(func() error {
			<-all
			time.Sleep(time.Second) // until each of them waits for the reclaim
			return nil
		}))
		var each sync.WaitGroup
		for i := range callers {
			each.Go(func() { assert.NoError(t, second(s.sn.Prepare(s.ctx, fmt.Sprint(i), ""))) })
		}
		each.Wait()
		end()
		assert.Equal(t, 1, waits())
		s.requireInvariants()
	})
}

// Concurrent renewals share a reclaim, and all their old runtimes are destroyed before any
// layer is unpacked again.
func TestConcurrentRenewalsShareAReclaim(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t)
		threeCached(s)
		const callers = 8
		var partials []string
		for i := range callers {
			key := s.backend("default", fmt.Sprintf("extract-%d-x %s", i, chain(fmt.Sprint(i))))
			require.NoError(t, second(s.sn.Prepare(s.ctx, key, "")))
			partials = append(partials, s.dataset(key))
			s.write(key, hundred)
		}
		waits := s.pool.Count(zfsfake.Before(zfsfake.WaitFreed))
		end := s.pool.FailAt(zfsfake.Before(zfsfake.Destroy), zfsfake.Do(func() error {
			time.Sleep(time.Second) // until each of them waits for the reclaim
			return nil
		}))
		var each sync.WaitGroup
		for _, partial := range partials {
			each.Go(func() {
				_, _, err := s.sn.Renew(s.ctx, partial, zfs.ErrNoSpace)
				assert.NoError(t, err)
			})
		}
		each.Wait()
		end()
		assert.LessOrEqual(t, waits(), 2, "the first, and one for the callers that joined while it destroyed")
		for _, partial := range partials {
			assert.False(t, s.has(partial))
		}
		s.requireInvariants()
	})
}

// A running cleanup and a commit that reclaims space do not deadlock.
func TestReclaimForACommitDuringACleanup(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t, keepCached(0))
		name, _ := s.pull("default", "", chain("a"), hundred)
		key := s.backend("k8s.io", "extract-2-x "+chain("a"))
		require.NoError(t, second(s.sn.Prepare(s.ctx, key, "")))
		s.remove(name) // the template is cached, and a cleanup may destroy it
		end := s.pool.FailAt(zfsfake.Before(zfsfake.Apply), zfsfake.Do(func() error {
			assert.NoError(t, s.sn.Cleanup(s.ctx))
			return zfsfake.Error("apply", "x", zfs.ErrNoSpace)
		}), zfsfake.Once())
		require.NoError(t, s.sn.Commit(s.ctx, s.backend("k8s.io", chain("a")), key))
		end()
		s.requireInvariants()
	})
}

// Renew gives an extraction that ran out of space a new clone under its key, after all
// cached templates were evicted.
func TestRenewReplacesTheRuntimeAfterReclaim(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t)
		parent, _ := s.pull("default", "", chain("d"), hundred)
		a, b, c := threeCached(s)
		key := s.backend("default", "extract-9-x "+chain("e"))
		require.NoError(t, second(s.sn.Prepare(s.ctx, key, parent, ref(chain("e")))))
		partial := s.dataset(key)
		s.write(key, "partial;")
		s.resize(900)
		before := s.stat(key)
		fresh, reclaimed, err := s.sn.Renew(s.ctx, partial, zfs.ErrNoSpace)
		require.NoError(t, err)
		assert.Equal(t, "3 cached templates of 300B were evicted, and pool tank is 77% full (700B of 900B)", reclaimed)
		assert.False(t, s.has(a) || s.has(b) || s.has(c) || s.has(partial))
		assert.Equal(t, fresh, s.dataset(key))
		assert.NotEqual(t, partial, fresh)
		assert.Equal(t, before, s.stat(key))
		assert.Equal(t, hundred, s.visible()[key].Content, "the content of its parent only")
		s.requireInvariants()
		s.write(key, "whole;")
		name := s.backend("default", chain("e"))
		s.commit(name, key, ref(chain("e")))
		assert.Contains(t, s.templateOf(name), chain("e"), "the template is the layer")
		s.crash()
		assert.Equal(t, hundred+"whole;", s.visible()[name].Content)
		s.requireInvariants()
	})
}

// Renew and Discard change nothing but extractions.
func TestRenewRefusesOtherDatasets(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.layer("base", "", "b;")
	s.prepare("web", "base")
	s.write("web", "precious;")
	before := s.visible()
	for _, dataset := range []string{s.dataset("web"), s.templateOf("base"), "tank/z/runtime/none-0123456789abcdef", "elsewhere", ""} {
		_, _, err := s.sn.Renew(s.ctx, dataset, zfs.ErrNoSpace)
		assert.ErrorIs(t, err, errdefs.ErrFailedPrecondition, dataset)
		assert.NoError(t, s.sn.Discard(s.ctx, dataset))
	}
	assert.Equal(t, before, s.visible())
	s.requireInvariants()
}

// If the new clone does not fit either, the snapshot is removed.
func TestRenewWithoutSpaceRemovesTheSnapshot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t)
		threeCached(s)
		key := s.backend("default", "extract-9-x "+chain("e"))
		require.NoError(t, second(s.sn.Prepare(s.ctx, key, "")))
		s.write(key, "partial;")
		s.resize(600)
		_, _, err := s.sn.Renew(s.ctx, s.dataset(key), zfs.ErrNoSpace)
		require.ErrorIs(t, err, errdefs.ErrResourceExhausted)
		assert.ErrorContains(t, err, "3 cached templates")
		assert.Equal(t, []string{"web"}, s.names())
		s.resize(0)
		s.requireInvariants()
		assert.Empty(t, heldLocks(s.sn))
	})
}

// Discard removes an extraction and destroys its runtime.
func TestDiscardDestroysTheRuntime(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	parent, _ := s.pull("default", "", chain("d"), hundred)
	key := s.backend("default", "extract-9-x "+chain("e"))
	require.NoError(t, second(s.sn.Prepare(s.ctx, key, parent)))
	runtime := s.dataset(key)
	require.NoError(t, s.sn.Discard(s.ctx, runtime))
	assert.False(t, s.has(runtime), "destroyed at once")
	assert.Equal(t, []string{parent}, s.names())
	require.NoError(t, s.sn.Remove(s.ctx, key), "as containerd does next")
	s.remove(parent)
	s.requireInvariants()
}

// A caller that waits for a reclaim can be cancelled.
func TestWaitingForAReclaimCanBeCancelled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t)
		a, _, _ := threeCached(s)
		s.resize(900)
		ctx, cancel := context.WithCancel(s.ctx)
		end := s.pool.FailAt(zfsfake.Before(zfsfake.WaitFreed), zfsfake.Do(func() error {
			cancel()
			time.Sleep(time.Second)
			return nil
		}))
		assert.ErrorIs(t, second(s.sn.Prepare(ctx, "x", "")), context.Canceled)
		end()
		time.Sleep(time.Minute)
		assert.False(t, s.has(a))
		s.remove("x") // the operation may have succeeded
		s.requireInvariants()
	})
}

// If every k-th call runs out of space, each operation succeeds or fails for lack of space.
// When there is space again, nothing is left over and all operations succeed.
func TestEveryKthCallRunsOutOfSpace(t *testing.T) {
	t.Parallel()
	for _, kind := range []error{zfs.ErrNoSpace, zfs.ErrQuota} {
		for k := 1; k <= 12; k++ {
			t.Run(fmt.Sprintf("%v, every %d", kind, k), func(t *testing.T) {
				t.Parallel()
				s := newFixture(t)
				cached, _ := s.pull("default", "", chain("a"), hundred)
				s.remove(cached)
				changes := zfsfake.Before(zfsfake.Apply, zfsfake.Destroy, zfsfake.Mark)
				end := s.pool.FailAt(changes, zfsfake.Return(zfsfake.Error("apply", "tank/z", kind)), zfsfake.Every(k))
				for i := range 4 {
					key := fmt.Sprint("web ", i)
					for _, err := range []error{
						second(s.sn.Prepare(s.ctx, key, "")), second(s.sn.View(s.ctx, key+" looked at", "")),
						s.sn.Commit(s.ctx, key+" saved", key), s.sn.Remove(s.ctx, key+" saved"), s.sn.Cleanup(s.ctx),
					} {
						if !errdefs.IsNotFound(err) && !errdefs.IsFailedPrecondition(err) { // because an earlier operation failed
							assert.True(t, err == nil || errdefs.IsResourceExhausted(err), "%v", err)
						}
					}
				}
				end()
				for _, info := range s.walk() {
					s.remove(info.Name)
				}
				s.requireInvariants()
				s.layer("base", "", "b;")
				s.prepare("web", "base")
				s.requireInvariants()
			})
		}
	}
}

// Concurrent writes can make ZFS refuse a promote although there is space. A commit retries
// that for a while without evicting anything, but not if the pool is full.
func TestCommitRetriesPromoteBesideWriters(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		refusals int
		full     bool
		keeps    bool
		fits     bool
		waits    bool
	}{
		"the writes end":   {refusals: 5, keeps: true, fits: true, waits: true},
		"they never end":   {refusals: 1 << 20, waits: true},
		"the pool is full": {refusals: 1, full: true, fits: true},
		"no writes":        {keeps: true, fits: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newFixture(t)
				a, b, d := threeCached(s)
				if c.full {
					s.resize(900)
				}
				if c.refusals > 0 {
					refusal := zfsfake.Return(zfsfake.Error("promote", "tank/z", zfs.ErrNoSpace))
					defer s.pool.FailAt(zfsfake.Before(zfsfake.Promote), refusal, zfsfake.Times(c.refusals))()
				}
				began := time.Now()
				err := s.sn.Commit(s.ctx, "saved", "web")
				assert.Equal(t, c.fits, err == nil, "%v", err)
				if !c.fits {
					require.ErrorIs(t, err, errdefs.ErrResourceExhausted)
				}
				assert.Equal(t, c.keeps, s.has(a) && s.has(b) && s.has(d))
				assert.Less(t, time.Since(began), time.Minute)
				assert.Equal(t, c.waits, time.Since(began) > 0, "%s", time.Since(began))
				s.resize(0)
				s.requireInvariants()
			})
		})
	}
}

// A commit that fails for a quota on storage does not wait for writers.
func TestCommitIntoAFullQuotaReclaimsAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t)
		threeCached(s)
		s.quota("tank/z/storage", "300") // as much as is in it
		attempts := 0
		s.pool.FailAt(zfsfake.Before(zfsfake.Promote), zfsfake.Do(func() error {
			attempts++
			return zfsfake.Error("promote", "tank/z/storage/x", zfs.ErrQuota)
		}), zfsfake.Until(zfsfake.Before(zfsfake.Destroy)))
		began := time.Now()
		require.NoError(t, s.sn.Commit(s.ctx, "saved", "web"))
		assert.Less(t, time.Since(began), 5*time.Second)
		assert.Less(t, attempts, 5, "attempts before the reclaim")
	})
}

// ZFS frees destroyed datasets later. A pending removal that cannot be written before that
// does not prevent the retry.
func TestReclaimSucceedsAlthoughRemovalsCannotBeWritten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t)
		threeCached(s)
		s.layer("base", "", "")
		s.view("gone", "base")
		s.cleanup()
		s.remove("gone")
		end := s.pool.FailAt(zfsfake.Before(zfsfake.Apply), zfsfake.Refuse(zfs.ErrNoSpace), zfsfake.Until(zfsfake.Before(zfsfake.WaitFreed)))
		require.NoError(t, second(s.sn.Prepare(s.ctx, "x", "")))
		end()
		s.requireInvariants()
	})
}
