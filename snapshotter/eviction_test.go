package snapshotter

import (
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

// hundred is the content of a layer of a hundred bytes.
var hundred = strings.Repeat("x", 99) + ";"

// threeCached creates three cached layers of a hundred bytes each, and a container of six
// hundred bytes. b is a child of a. The layers were last used in the order c, b, a.
func threeCached(s *fixture) (a, b, c string) {
	a, _ = s.pull("default", "", chain("a"), hundred)
	b, _ = s.pull("default", a, chain("b"), hundred)
	c, _ = s.pull("default", "", chain("c"), hundred)
	names := map[string]string{a: s.templateOf(a), b: s.templateOf(b), c: s.templateOf(c)}
	s.prepare("web", "")
	s.write("web", strings.Repeat(hundred, 6))
	for _, name := range []string{c, b, a} {
		s.remove(name)
		time.Sleep(time.Hour)
	}
	s.cleanup()
	return names[a], names[b], names[c]
}

func (s *fixture) has(dataset string) bool {
	ok := false
	s.pool.Edit(func(state *zfsfake.State) { _, ok = state.FS[dataset] })
	return ok
}

func (s *fixture) resize(size uint64) { s.pool.Edit(func(state *zfsfake.State) { state.Size = size }) }

// Above the threshold the least recently used templates are evicted, until the limit is
// below it by the margin.
func TestPressureEvictsLeastRecentlyUsed(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		squeeze func(s *fixture)
		gone    string // of a, b, c
		logged  string
	}{
		"enough space":      {func(s *fixture) { s.resize(1125) }, "", ""},
		"a little too full": {func(s *fixture) { s.resize(1100) }, "c", "pool tank is 81% full (900B of 1.074KiB)"},
		"two are evicted":   {func(s *fixture) { s.resize(1000) }, "cb", "pool tank is 90% full"},
		"all are evicted":   {func(s *fixture) { s.resize(900) }, "cba", "pool tank is 100% full"},
		"it would not help": {func(s *fixture) {
			s.write("web", strings.Repeat(hundred, 50))
			s.resize(6000)
		}, "", "would not bring it below 80%"},
		"a quota on the base": {func(s *fixture) { s.quota("tank/z", "1100") }, "c", "the quota of tank/z is 81% full"},
		"a quota above it":    {func(s *fixture) { s.quota("tank", "1100") }, "c", "the quota of tank is 81% full"},
		"a quota in the base": {func(s *fixture) { s.quota("tank/z/storage", "370") }, "c", "the quota of tank/z/storage"},
		"a checkpoint": {func(s *fixture) {
			s.resize(1100)
			s.pool.Edit(func(state *zfsfake.State) { state.Checkpoint = true })
		}, "", "the pool has a checkpoint"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newFixture(t, settings(func(c *Config) { c.Pressure = 80 }))
				layers := make(map[rune]string)
				layers['a'], layers['b'], layers['c'] = threeCached(s)
				c.squeeze(s)
				s.cleanup()
				for name, dataset := range layers {
					assert.Equal(t, !strings.ContainsRune(c.gone, name), s.has(dataset), "layer %c", name)
				}
				assert.Contains(t, s.log.String(), c.logged)
				before := strings.Count(s.log.String(), "\n")
				s.cleanup()
				assert.Equal(t, before, strings.Count(s.log.String(), "\n"), "logged once: %s", s.log)
				s.requireInvariants()
			})
		})
	}
}

func (s *fixture) quota(dataset, size string) {
	s.pool.EditFS(dataset, func(fs *zfsfake.FS) { fs.Native["quota"] = size })
}

// CacheMaxBytes limits the total size of the cached templates.
func TestCacheMaxBytesIsEnforced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t, settings(func(c *Config) { c.CacheMaxBytes = 250 }))
		a, b, c := threeCached(s)
		assert.True(t, s.has(a) && s.has(b))
		assert.False(t, s.has(c))
		s.requireInvariants()
	})
}

// A Prepare under pressure causes an eviction, at most once per PressureInterval, and
// never if Pressure is 0.
func TestPrepareUnderPressureEvicts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t, settings(func(c *Config) { c.Pressure = 80 }))
		a, b, c := threeCached(s)
		s.resize(1100)
		checks := s.pool.Count(zfsfake.Before(zfsfake.PoolState))
		s.prepare("one", "")
		synctest.Wait()
		assert.Zero(t, checks(), "the operation needs the processors first")
		s.pressureChecked()
		assert.False(t, s.has(c))
		assert.True(t, s.has(a) && s.has(b))
		before := checks()
		s.prepare("two", "")
		s.pressureChecked()
		assert.Equal(t, before, checks(), "checked just before")
		time.Sleep(reaper.PressureInterval)
		s.view("look", "")
		s.pressureChecked()
		assert.Equal(t, before, checks(), "a view writes nothing")
		s.prepare("three", "")
		s.pressureChecked()
		assert.Greater(t, checks(), before)
		end := s.pool.FailAt(zfsfake.Before(zfsfake.PoolState), zfsfake.Refuse(zfs.ErrPermission))
		time.Sleep(reaper.PressureInterval)
		s.prepare("four", "")
		s.pressureChecked()
		assert.Contains(t, s.log.String(), "failed to evict cached templates")
		end()
		s.requireInvariants()
	})
}

// Pressure that eviction cannot relieve evicts nothing, and does not start a cleanup.
func TestPressureThatCannotBeRelievedEvictsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t, settings(func(c *Config) { c.Pressure, c.Cleanup = 80, CleanupManual }))
		a, b, c := threeCached(s)
		s.prepare("old", "")
		old := s.dataset("old")
		s.remove("old")
		s.write("web", strings.Repeat(hundred, 50))
		s.resize(6000)
		time.Sleep(reaper.PressureInterval)
		s.prepare("new", "")
		s.pressureChecked()
		assert.True(t, s.has(a) && s.has(b) && s.has(c) && s.has(old))
		assert.Contains(t, s.log.String(), "would not bring it below 80%")
		require.NoError(t, s.sn.Clean(s.ctx, nil))
		assert.False(t, s.has(old))
		s.requireInvariants()
	})
}

// An administrator destroys a cached template. The next pull unpacks its layer, and a
// commit that would add a record to it fails once.
func TestMissingCachedTemplateIsUnpackedAgain(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	a, _ := s.pull("default", "", chain("a"), "a;")
	gone := s.templateOf(a)
	s.remove(a)
	s.cleanup()
	s.pool.Edit(func(state *zfsfake.State) { delete(state.FS, gone) })
	name, unpacked := s.pull("default", "", chain("a"), "a;")
	assert.True(t, unpacked)
	assert.Contains(t, s.log.String(), "cached template is missing; unpacking the layer again")
	assert.Equal(t, gone, s.templateOf(name))

	joining := s.backend("default", "extract-2-abcd "+chain("a"))
	s.prepare(joining, "")
	s.remove(name)
	s.cleanup()
	s.pool.Edit(func(state *zfsfake.State) { delete(state.FS, gone) })
	joined := s.backend("default", chain("a"))
	err := s.sn.Commit(s.ctx, joined, joining)
	require.ErrorIs(t, err, errdefs.ErrNotFound)
	assert.ErrorContains(t, err, "cached template "+gone+" is missing")
	s.commit(joined, joining)
	assert.Equal(t, gone, s.templateOf(joined))
	s.requireInvariants()
}

// A template that is pinned between the plan and its execution is kept.
func TestEvictionKeepsTemplatesPinnedMeanwhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t, settings(func(c *Config) { c.Pressure = 80 }))
		a, b, c := threeCached(s)
		s.resize(1000)
		s.pool.FailAt(zfsfake.Before(zfsfake.Space), zfsfake.Do(func() error { // before the plan is made
			s.sn.index.Pin(s.sn.index.Template(c))
			return nil
		}), zfsfake.Once())
		s.cleanup()
		assert.True(t, s.has(c), "an operation is about to use it")
		assert.False(t, s.has(a) || s.has(b))
		s.sn.index.Unpin(s.sn.index.Template(c))
		s.requireInvariants()
	})
}

// A template that cannot be destroyed is logged once, and another is evicted instead.
func TestEvictionSkipsBusyTemplates(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t, settings(func(c *Config) { c.Pressure = 80 }))
		a, b, c := threeCached(s)
		s.pool.Edit(func(state *zfsfake.State) { state.Mounted[c] = true })
		s.resize(1100)
		s.cleanup()
		s.waitForRetries()
		s.cleanup()
		assert.True(t, s.has(c) && s.has(a))
		assert.False(t, s.has(b), "evicted in its place")
		assert.Equal(t, 1, strings.Count(s.log.String(), "failed to destroy dataset"), s.log.String())
		s.pool.Edit(func(state *zfsfake.State) { delete(state.Mounted, c) })
		s.requireInvariants()
	})
}

// Pressure that persists because all cached templates are busy is logged once.
func TestPressureWithOnlyBusyTemplatesIsLoggedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t, settings(func(c *Config) { c.Pressure = 80 }))
		_, b, c := threeCached(s)
		s.pool.Edit(func(state *zfsfake.State) { state.Mounted[b], state.Mounted[c] = true, true })
		s.resize(1000)
		for range 3 {
			s.cleanup()
		}
		assert.Equal(t, 1, strings.Count(s.log.String(), "not evicting cached templates under pressure"), s.log.String())
		s.pool.Edit(func(state *zfsfake.State) { clear(state.Mounted) })
		s.waitForRetries()
		s.requireInvariants()
	})
}

func TestPressureOutOfRangeIsRefused(t *testing.T) {
	t.Parallel()
	for _, pressure := range []int{-1, 101} {
		s := newFixture(t)
		require.NoError(t, s.sn.Close())
		s.with = func(c *Config) { c.Pressure = pressure }
		assert.ErrorContains(t, s.tryStart(), "is not between 0 and 100 percent")
	}
}

// A quota on <base>/runtime does not bound cached templates, so it evicts none.
func TestQuotaOnRuntimesEvictsNothing(t *testing.T) {
	t.Parallel()
	t.Run("pressure", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newFixture(t, settings(func(c *Config) { c.Pressure = 80 }))
			a, b, c := threeCached(s)
			s.quota("tank/z/runtime", "700") // the container has 600 of it
			s.cleanup()
			s.cleanup()
			s.cleanup()
			assert.True(t, s.has(a) && s.has(b) && s.has(c), "left: %q\n%s", s.templates(), s.log)
		})
	})
	t.Run("out of space", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newFixture(t)
			a, b, c := threeCached(s)
			s.quota("tank/z/runtime", "600")
			s.pool.FailAt(zfsfake.Before(zfsfake.Clone), zfsfake.Return(zfsfake.Error("clone", "tank/z/runtime/x", zfs.ErrQuota)))
			require.ErrorIs(t, second(s.sn.Prepare(s.ctx, "x", "")), errdefs.ErrResourceExhausted)
			assert.True(t, s.has(a) && s.has(b) && s.has(c), "left: %q\n%s", s.templates(), s.log)
		})
	})
}

// A Prepare under pressure does not evict the layer that it requests.
func TestPrepareUnderPressureKeepsItsLayer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t, settings(func(c *Config) { c.Pressure = 80 }))
		_, _, c := threeCached(s)
		s.resize(1100)
		time.Sleep(reaper.PressureInterval)
		_, unpacked := s.pull("default", "", chain("c"), hundred)
		assert.False(t, unpacked, "the layer was in the pool: %s", s.log)
		s.pressureChecked()
		assert.True(t, s.has(c))
	})
}
