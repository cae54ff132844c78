package snapshotter

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/internal/reaper"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
	"github.com/zfstpl/zfstpl/snapshotter/zfs/zfsfake"
)

// blockedOps are operations that block at a call to the pool, each with the key that it
// locks, for the fixture of newBlockedFixture.
var blockedOps = map[string]struct {
	key   string
	at    zfsfake.Kind // the call that it waits in
	do    func(ctx context.Context, s *fixture) error
	makes string // the name that exists after it succeeded, other than key
}{
	"prepare": {key: "new", at: zfsfake.Apply, do: func(ctx context.Context, s *fixture) error {
		return second(s.sn.Prepare(ctx, "new", "base"))
	}},
	"view": {key: "new", at: zfsfake.Apply, do: func(ctx context.Context, s *fixture) error {
		return second(s.sn.View(ctx, "new", "base"))
	}},
	"prepare during a reclaim": {key: "new", at: zfsfake.Destroy, do: func(ctx context.Context, s *fixture) error {
		s.resize(900)
		return second(s.sn.Prepare(ctx, "new", "base"))
	}},
	"commit, by its key": {key: "web", at: zfsfake.Apply, makes: "saved", do: func(ctx context.Context, s *fixture) error {
		return s.sn.Commit(ctx, "saved", "web")
	}},
	"commit, by its name": {key: "saved", at: zfsfake.Apply, do: func(ctx context.Context, s *fixture) error {
		return s.sn.Commit(ctx, "saved", "web")
	}},
	"commit during a reclaim": {key: "web", at: zfsfake.Destroy, makes: "saved", do: func(ctx context.Context, s *fixture) error {
		s.resize(900)
		return s.sn.Commit(ctx, "saved", "web")
	}},
	"update": {key: "web", at: zfsfake.Apply, do: func(ctx context.Context, s *fixture) error {
		return second(s.sn.Update(ctx, snapshots.Info{Name: "web", Labels: map[string]string{"a": "b"}}))
	}},
	"renew during a reclaim": {key: "default/9/extract-9-x " + chain("e"), at: zfsfake.Destroy, do: func(ctx context.Context, s *fixture) error {
		return second(s.renew(ctx, "default/9/extract-9-x "+chain("e")))
	}},
	"renew while ZFS frees": {key: "default/9/extract-9-x " + chain("e"), at: zfsfake.WaitFreed, do: func(ctx context.Context, s *fixture) error {
		return second(s.renew(ctx, "default/9/extract-9-x "+chain("e")))
	}},
}

// renew calls Renew for the runtime of key.
func (s *fixture) renew(ctx context.Context, key string) (string, error) {
	fresh, _, err := s.sn.Renew(ctx, s.dataset(key), zfs.ErrNoSpace)
	return fresh, err
}

// newBlockedFixture returns a fixture with the snapshots that blockedOps use.
func newBlockedFixture(t *testing.T) *fixture {
	s := newFixture(t)
	s.layer("base", "", "")
	threeCached(s)
	s.prepare("default/9/extract-9-x "+chain("e"), "base")
	s.prepare("other", "base")
	return s
}

// Remove returns at once, even for a key that an operation has locked, whether the operation's
// caller waits or gave up. The snapshot is not visible from then on, nor after the operation,
// whether that succeeds or fails.
func TestRemoveNeverWaits(t *testing.T) {
	t.Parallel()
	for what, c := range blockedOps {
		for _, fails := range []bool{false, true} {
			for _, cancelled := range []bool{false, true} {
				synctest.Test(t, func(t *testing.T) {
					s := newBlockedFixture(t)
					gate := make(chan struct{})
					end := s.pool.FailAt(zfsfake.Before(c.at), zfsfake.Do(func() error {
						<-gate
						if fails {
							return zfsfake.Error(string(c.at), "x", zfs.ErrPermission)
						}
						return nil
					}))
					ctx, leave := context.WithCancel(s.ctx)
					defer leave()
					done := make(chan error, 1)
					go func() { done <- c.do(ctx, s) }()
					synctest.Wait()
					if cancelled {
						leave()
						require.ErrorIs(t, <-done, context.Canceled, what)
					}
					began := time.Now()
					s.remove(c.key, "other")
					require.Equal(t, began, time.Now(), what)
					requireHidden := func() {
						t.Helper()
						assert.ErrorIs(t, second(s.sn.Stat(s.ctx, c.key)), errdefs.ErrNotFound, what)
						assert.ErrorIs(t, second(s.sn.Mounts(s.ctx, c.key)), errdefs.ErrNotFound, what)
						assert.NotContains(t, s.names(), c.key, what)
					}
					requireHidden()
					s.remove(c.key)
					close(gate)
					if !cancelled {
						err := <-done
						assert.False(t, fails && err == nil, "%s: %v", what, err)
					}
					synctest.Wait()
					end()
					s.resize(0)
					requireHidden()
					if c.makes != "" && !fails && !cancelled {
						assert.Contains(t, s.names(), c.makes, what)
					}
					s.requireInvariants()
					assert.Empty(t, heldLocks(s.sn), what)
					assert.NotRegexp(t, "hidden|interruptible", s.sn.index.DumpTransient(), what)
					s.prepare("again", "base") // the key is free
					if c.key != "saved" {
						s.prepare(c.key, "base")
					}
					s.crash()
					s.requireInvariants()
				})
			}
		}
	}
}

// Remove cancels a Renew of its key, and with it the reclaim.
func TestRemoveCancelsRenew(t *testing.T) {
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
		key := s.backend("default", "extract-9-x "+chain("e"))
		s.prepare(key, "")
		resume := s.block(zfsfake.Destroy)
		done := make(chan error, 1)
		go func() { done <- second(s.renew(s.ctx, key)) }()
		synctest.Wait()
		s.remove(key)
		require.ErrorIs(t, <-done, errdefs.ErrNotFound)
		resume()
		synctest.Wait()
		assert.GreaterOrEqual(t, len(s.templates()), before-reaper.QuietBatch, "only the current batch was destroyed")
		s.requireInvariants()
	})
}

// Remove of a parent returns FailedPrecondition even while an operation has locked it.
func TestRemoveOfParentIsRefusedDuringOperation(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newBlockedFixture(t)
		resume := s.block(zfsfake.Apply)
		done := make(chan error, 2)
		go func() {
			done <- second(s.sn.Update(s.ctx, snapshots.Info{Name: "base", Labels: map[string]string{"a": "b"}}))
		}()
		go func() { done <- second(s.sn.Prepare(s.ctx, "new", "base")) }()
		synctest.Wait()
		require.ErrorIs(t, s.sn.Remove(s.ctx, "base"), errdefs.ErrFailedPrecondition)
		s.stat("base")
		resume()
		require.NoError(t, <-done)
		require.NoError(t, <-done)
		assert.Equal(t, "b", s.stat("base").Labels["a"])
		s.requireInvariants()
	})
}

// A hidden snapshot cannot become a parent.
func TestHiddenSnapshotCannotBecomeParent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t)
		s.layer("base", "", "")
		resume := s.block(zfsfake.Apply)
		done := make(chan error, 1)
		go func() {
			done <- second(s.sn.Update(s.ctx, snapshots.Info{Name: "base", Labels: map[string]string{"a": "b"}}))
		}()
		synctest.Wait()
		s.remove("base")
		require.ErrorIs(t, second(s.sn.Prepare(s.ctx, "new", "base")), errdefs.ErrNotFound)
		resume()
		require.NoError(t, <-done)
		assert.Empty(t, s.names())
		s.requireInvariants()
	})
}

// For a layer whose record is hidden, Prepare does not return AlreadyExists, because
// containerd would not find the record. The name can be used again afterwards.
func TestLayerWithHiddenRecordIsUnpackedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t)
		const id = "default/9/"
		s.prepare(id+"extract-1-x "+chain("a"), "", ref(chain("a")))
		s.commit(id+chain("a"), id+"extract-1-x "+chain("a"), ref(chain("a")))
		template := s.templateOf(id + chain("a"))
		unlock, err := s.sn.locks.datasets.Lock(s.ctx, template)
		require.NoError(t, err)
		done := make(chan error, 1)
		go func() { done <- second(s.sn.Prepare(s.ctx, id+"extract-2-x "+chain("a"), "", ref(chain("a")))) }()
		synctest.Wait() // Prepare holds the key and waits for the dataset
		s.remove(id + chain("a"))
		unlock()
		require.NoError(t, <-done, "it is unpacked again")
		assert.Equal(t, []string{id + "extract-2-x " + chain("a")}, s.names())
		s.commit(id+chain("a"), id+"extract-2-x "+chain("a"), ref(chain("a")))
		assert.Equal(t, template, s.templateOf(id+chain("a")))
		s.requireInvariants()
		s.crash()
		s.requireInvariants()
	})
}
