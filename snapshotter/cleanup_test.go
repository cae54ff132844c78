package snapshotter

import (
	"errors"
	"fmt"
	"slices"
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

// A cached layer is kept for CacheKeep. An opaque template is destroyed at once, because
// no pull can reuse it.
func TestCachedLayersAreKeptForCacheKeep(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		keep, wait time.Duration
		left       int // of the chain of two layers
	}{
		"not at all":          {0, 0, 0},
		"not yet":             {time.Hour, time.Hour - 2*time.Second, 2},
		"long enough":         {time.Hour, time.Hour, 0},
		"for ever":            {KeepForever, 10000 * time.Hour, 2},
		"not yet, restarted":  {time.Hour, time.Hour - 2*time.Second, 2},
		"for ever, restarted": {KeepForever, 10000 * time.Hour, 2},
		"enough, restarted":   {time.Hour, time.Hour + time.Second, 0},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newFixture(t, keepCached(c.keep))
				a, _ := s.pull("default", "", chain("a"), "a;")
				b, _ := s.pull("default", a, chain("b"), "b;")
				s.layer("saved", b, "")
				time.Sleep(5 * time.Hour) // time in use does not count
				s.remove("saved", b, a)
				if strings.HasSuffix(what, "restarted") {
					s.restart()
				}
				time.Sleep(c.wait)
				s.cleanup()
				assert.Len(t, s.datasets(), 1+c.left)
				assert.Empty(t, s.walk())
				s.requireInvariants()
			})
		})
	}
}

// Cached templates are destroyed leaf first, and those with a clone in use are kept.
func TestCleanupIsLeafFirst(t *testing.T) {
	t.Parallel()
	s := newFixture(t, keepCached(0))
	var chainOf []string
	parent := ""
	for _, digit := range []string{"a", "b", "c", "d"} {
		parent, _ = s.pull("default", parent, chain(digit), digit+";")
		chainOf = append(chainOf, parent)
	}
	s.prepare("web", chainOf[1])
	s.remove(chainOf[3], chainOf[2])
	s.cleanup()
	assert.Len(t, s.templates(), 3, "empty, a and b")
	s.requireInvariants()
	s.remove("web", chainOf[1], chainOf[0])
	s.requireInvariants()
	assert.Len(t, s.datasets(), 1)
}

// The garbage and the chain of templates are each longer than one batch.
func TestCleanupDestroysMoreThanOneBatch(t *testing.T) {
	t.Parallel()
	s := newFixture(t, keepCached(0))
	var names []string
	parent := ""
	for i := range reaper.QuietBatch + 10 {
		name := fmt.Sprintf("layer %d", i)
		s.layer(name, parent, "x;")
		names = append(names, name)
		parent = name
	}
	for i := range reaper.QuietBatch + 10 {
		s.prepare(fmt.Sprintf("web %d", i), "")
		s.remove(fmt.Sprintf("web %d", i))
	}
	slices.Reverse(names)
	s.remove(names...)
	s.requireInvariants()
	assert.Len(t, s.datasets(), 1)
}

// A dataset that is mounted, or has a foreign snapshot or child, is kept without an error
// and logged once. It is destroyed as soon as that is possible.
func TestDatasetsInUseAreKept(t *testing.T) {
	t.Parallel()
	for what, hold := range map[string]func(s *fixture, dataset string) (release func()){
		"mounted": func(s *fixture, dataset string) func() {
			s.pool.Edit(func(state *zfsfake.State) { state.Mounted[dataset] = true })
			return func() { s.pool.Edit(func(state *zfsfake.State) { delete(state.Mounted, dataset) }) }
		},
		"foreign snapshot": func(s *fixture, dataset string) func() {
			require.NoError(s, s.pool.Apply(s.ctx, zfs.Snapshot(dataset+"@daily")))
			return func() { require.NoError(s, s.pool.DestroySnapshot(s.ctx, dataset+"@daily")) }
		},
		"foreign child": func(s *fixture, dataset string) func() {
			require.NoError(s, s.pool.Create(s.ctx, dataset+"/child", nil))
			return func() { s.pool.Edit(func(state *zfsfake.State) { delete(state.FS, dataset+"/child") }) }
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { datasetsInUseAreKept(t, hold) })
		})
	}
}

func datasetsInUseAreKept(t *testing.T, hold func(s *fixture, dataset string) (release func())) {
	s := newFixture(t, keepCached(0))
	s.layer("base", "", "b;")
	s.cleanup()
	s.prepare("web", "base")
	of := map[string]string{"web": s.dataset("web"), "base": s.templateOf("base")}
	for _, name := range []string{"web", "base"} {
		dataset := of[name]
		release := hold(s, dataset)
		s.remove(name)
		s.cleanup()
		for range 3 {
			s.waitForRetries()
			s.cleanup()
			assert.Contains(t, s.datasets(), dataset)
		}
		assert.Equal(t, 1, strings.Count(s.log.String(), "dataset="+dataset+" "), "logged once: %s", s.log)
		s.requireRecoverable()
		release()
		s.waitForRetries()
		assert.NotContains(t, s.datasets(), dataset, "destroyed without a request")
		s.requireRecoverable()
	}
	assert.Len(t, s.datasets(), 1)
}

// A template with a foreign clone is kept, and can be reused.
func TestForeignCloneKeepsTemplate(t *testing.T) {
	t.Parallel()
	s := newFixture(t, keepCached(0))
	a, _ := s.pull("default", "", chain("a"), "a;")
	s.cleanup()
	template := s.templateOf(a)
	require.NoError(t, s.pool.Apply(s.ctx, zfs.Clone(template+"@extracted", "tank/mine")))
	s.remove(a)
	s.cleanup()
	s.cleanup()
	assert.Contains(t, s.datasets(), template)
	_, unpacked := s.pull("default", "", chain("a"), "")
	assert.False(t, unpacked, "the template is in use again")
	s.requireInvariants()
}

// A layer that cannot be destroyed can be reused.
func TestBusyTemplateIsReused(t *testing.T) {
	t.Parallel()
	s := newFixture(t, keepCached(0))
	a, _ := s.pull("default", "", chain("a"), "a;")
	s.pool.Edit(func(state *zfsfake.State) { state.Mounted[s.templateOf(a)+"@extracted"] = true })
	s.remove(a)
	s.cleanup()
	a, unpacked := s.pull("default", "", chain("a"), "")
	assert.False(t, unpacked)
	s.pool.Edit(func(state *zfsfake.State) { clear(state.Mounted) })
	s.cleanup()
	assert.Equal(t, "a;", s.visible()[a].Content)
	s.requireInvariants()
}

// If the pool fails to destroy, nothing changes, and the next cleanup tries again.
func TestFailedCleanupChangesNothing(t *testing.T) {
	t.Parallel()
	s := newFixture(t, keepCached(0))
	a, _ := s.pull("default", "", chain("a"), "a;")
	s.prepare("web", a)
	s.remove("web", a)
	s.flush()
	before, pool := dump(s.sn), s.datasets()
	s.remove("nothing")
	end := s.pool.FailAt(zfsfake.Before(zfsfake.Destroy), zfsfake.Refuse(zfs.ErrSuspended))
	assert.ErrorIs(t, s.sn.Cleanup(s.ctx), errdefs.ErrUnavailable)
	assert.Equal(t, before, dump(s.sn))
	assert.Equal(t, pool, s.datasets())
	end()
	s.remove("nothing")
	end = s.pool.FailAt(zfsfake.Before(zfsfake.Apply), zfsfake.Refuse(zfs.ErrSuspended), zfsfake.Optional())
	assert.NoError(t, s.sn.Cleanup(s.ctx), "nothing was pending")
	end()
	s.requireInvariants()
	assert.Len(t, s.datasets(), 1)
}

// If the pool refuses an operation, the pool and the index are unchanged.
func TestFailedTransactionChangesNothing(t *testing.T) {
	t.Parallel()
	a := chain("a")
	operations := map[string]func(s *fixture) error{
		"prepare": func(s *fixture) error { return second(s.sn.Prepare(s.ctx, "x", "base")) },
		"view":    func(s *fixture) error { return second(s.sn.View(s.ctx, "x", "base")) },
		"commit":  func(s *fixture) error { return s.sn.Commit(s.ctx, "x", "web") },
		"commit of an existing layer": func(s *fixture) error {
			return s.sn.Commit(s.ctx, "default/9/"+a, "default/8/extract-1-x "+a)
		},
		"reuse": func(s *fixture) error { return second(s.sn.Prepare(s.ctx, "default/7/x", "", ref(a))) },
		"update": func(s *fixture) error {
			info := s.stat("web")
			info.Labels = map[string]string{"big": strings.Repeat("x", 20_000)}
			return second(s.sn.Update(s.ctx, info))
		},
	}
	for _, c := range []struct{ pool, client error }{
		{zfs.ErrNoSpace, errdefs.ErrResourceExhausted}, {zfs.ErrQuota, errdefs.ErrResourceExhausted},
		{zfs.ErrNotFound, errdefs.ErrNotFound}, {zfs.ErrBusy, errdefs.ErrFailedPrecondition},
		{zfs.ErrHasClones, errdefs.ErrFailedPrecondition}, {zfs.ErrForeign, errdefs.ErrFailedPrecondition},
		{zfs.ErrPermission, errdefs.ErrPermissionDenied}, {zfs.ErrInvalid, errdefs.ErrInvalidArgument},
		{zfs.ErrSuspended, errdefs.ErrUnavailable}, {zfs.ErrUnavailable, errdefs.ErrUnavailable},
		{zfs.ErrExists, errdefs.ErrInternal}, // not AlreadyExists, which containerd would take for an existing layer
		{errors.New("something else"), nil},
	} {
		s := newFixture(t)
		s.layer("base", "", "b;")
		s.prepare("web", "base")
		name, _ := s.pull("default", "", a, "a;")
		s.prepare("default/8/extract-1-x "+a, "")
		s.remove(name)
		s.cleanup()
		before, pool := dump(s.sn), s.datasets()
		for what, do := range operations {
			// A reclaim would destroy cached templates.
			end := s.pool.FailAt(zfsfake.Before(zfsfake.Apply, zfsfake.Destroy), zfsfake.Return(fmt.Errorf("%s: %w", what, c.pool)))
			err := do(s)
			require.ErrorIs(t, err, c.pool, what)
			if c.client != nil {
				assert.ErrorIs(t, err, c.client, what)
			}
			assert.NotErrorIs(t, err, errdefs.ErrAlreadyExists, what)
			if c.client == nil { // the outcome is unknown, and is rolled back
				end()
				s.cleanup()
			}
			assert.Equal(t, before, dump(s.sn), what)
			assert.Equal(t, pool, s.datasets(), what)
			end()
		}
		s.requireInvariants()
		require.NoError(t, operations["commit"](s), "succeeds when the pool works again")
	}
}

// In a full pool nothing can be created, but everything can be removed.
func TestFullPoolCanBeEmptied(t *testing.T) {
	t.Parallel()
	for what, option := range map[string]func(*fixture){"atomic": func(*fixture) {}, "in steps": inSteps} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := newFixture(t, option, keepCached(0))
			s.layer("base", "", "b;")
			s.prepare("web", "base")
			s.cleanup()
			s.pool.Edit(func(state *zfsfake.State) { state.Full = true })
			before := dump(s.sn)
			assert.ErrorIs(t, second(s.sn.Prepare(s.ctx, "x", "base")), errdefs.ErrResourceExhausted)
			assert.ErrorIs(t, s.sn.Commit(s.ctx, "x", "web"), errdefs.ErrResourceExhausted)
			assert.Equal(t, before, dump(s.sn))
			s.view("look", "base")
			s.remove("look", "web", "base")
			s.requireInvariants()
			assert.Len(t, s.datasets(), 1)
		})
	}
}

// A commit whose flush fails would miss data that was written through mmap.
func TestCommitFlushes(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.prepare("web", "")
	s.pool.EditFS(s.dataset("web"), func(fs *zfsfake.FS) { fs.Dirty = "mmap;" })
	end := s.pool.FailAt(zfsfake.Before(zfsfake.Flush), zfsfake.Refuse(zfs.ErrSuspended))
	assert.ErrorIs(t, s.sn.Commit(s.ctx, "base", "web"), errdefs.ErrUnavailable)
	assert.Equal(t, []string{"web"}, s.names())
	end()
	s.commit("base", "web")
	s.requireInvariants()
	s.crash()
	assert.Equal(t, "mmap;", s.visible()["base"].Content)
}
