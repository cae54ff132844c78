package snapshotter

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// hundred is what a layer of a hundred bytes holds.
var hundred = strings.Repeat("x", 99) + ";"

// threeWarm has three layers of a hundred bytes each that nobody uses, a stood on
// by b, and c, which were used last in the order c, b, a; and a container of six
// hundred bytes that stays.
func threeCached(s *story) (a, b, c string) {
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

func (s *story) has(dataset string) bool {
	ok := false
	s.pool.edit(func(state *fakeState) { _, ok = state.fs[dataset] })
	return ok
}

func (s *story) resize(size uint64) { s.pool.edit(func(state *fakeState) { state.size = size }) }

// Above the threshold the least recently used go until there is some room below it.
func TestPressure(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		squeeze func(s *story)
		gone    string // of a, b, c
		says    string
	}{
		"enough room":         {func(s *story) { s.resize(1125) }, "", ""},
		"a little too full":   {func(s *story) { s.resize(1100) }, "c", "pool tank is 81% full (900B of 1.074KiB)"},
		"so full that two go": {func(s *story) { s.resize(1000) }, "cb", "pool tank is 90% full"},
		"so full that all go": {func(s *story) { s.resize(900) }, "cba", "pool tank is 100% full"},
		"it would not help": {func(s *story) {
			s.write("web", strings.Repeat(hundred, 50))
			s.resize(6000)
		}, "", "would not bring it below 80%"},
		"a quota on the base": {func(s *story) { s.quota("tank/z", "1100") }, "c", "the quota of tank/z is 81% full"},
		"a quota above it":    {func(s *story) { s.quota("tank", "1100") }, "c", "the quota of tank is 81% full"},
		"a quota in the base": {func(s *story) { s.quota("tank/z/storage", "370") }, "c", "the quota of tank/z/storage"},
		"there is a checkpoint": {func(s *story) {
			s.resize(1100)
			s.pool.edit(func(state *fakeState) { state.point = true })
		}, "", "the pool has a checkpoint"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := begin(t, settings(func(c *Config) { c.Pressure = 80 }))
				layers := make(map[rune]string)
				layers['a'], layers['b'], layers['c'] = threeCached(s)
				c.squeeze(s)
				s.cleanup()
				for name, dataset := range layers {
					assert.Equal(t, !strings.ContainsRune(c.gone, name), s.has(dataset), "layer %c", name)
				}
				assert.Contains(t, s.log.String(), c.says)
				before := strings.Count(s.log.String(), "\n")
				s.cleanup()
				assert.Equal(t, before, strings.Count(s.log.String(), "\n"), "what is so already is said once: %s", s.log)
				s.requireInvariants()
			})
		})
	}
}

func (s *story) quota(dataset, size string) {
	s.pool.editFS(dataset, func(fs *fakeFS) { fs.native["quota"] = size })
}

// What is warm may have so many bytes in all.
func TestWarmMaxBytes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := begin(t, settings(func(c *Config) { c.CacheMaxBytes = 250 }))
		a, b, c := threeCached(s)
		assert.True(t, s.has(a) && s.has(b))
		assert.False(t, s.has(c))
		s.requireInvariants()
	})
}

// A Prepare that starts under pressure has room made; it looks once in a while, and not
// at all where it is not asked to.
func TestPrepareUnderPressure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := begin(t, settings(func(c *Config) { c.Pressure = 80 }))
		a, b, c := threeCached(s)
		s.resize(1100)
		looks := 0
		s.pool.interrupt(func(call string) error {
			if call == "state" {
				looks++
			}
			return nil
		})
		s.prepare("one", "")
		synctest.Wait()
		assert.False(t, s.has(c))
		assert.True(t, s.has(a) && s.has(b))
		before := looks
		s.prepare("two", "")
		synctest.Wait()
		assert.Equal(t, before, looks, "just now it was looked")
		time.Sleep(pressureInterval)
		s.view("look", "")
		synctest.Wait()
		assert.Equal(t, before, looks, "a view writes nothing")
		s.prepare("three", "")
		synctest.Wait()
		assert.Greater(t, looks, before)
		s.pool.interrupt(func(call string) error {
			if call == "state" {
				return fakeError("state", "tank", zfs.ErrPermission)
			}
			return nil
		})
		time.Sleep(pressureInterval)
		s.prepare("four", "")
		synctest.Wait()
		assert.Contains(t, s.log.String(), "cached layers could not be evicted")
		s.pool.interrupt(nil)
		s.requireInvariants()
	})
}

// Who prepares does not wait for a cleanup that makes no room: what nobody needs goes
// when it would have gone.
func TestPrepareUnderPressureThatNothingRelieves(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := begin(t, settings(func(c *Config) { c.Pressure, c.Cleanup = 80, CleanupManual }))
		a, b, c := threeCached(s)
		s.prepare("old", "")
		old := s.dataset("old")
		s.remove("old")
		s.write("web", strings.Repeat(hundred, 50))
		s.resize(6000)
		time.Sleep(pressureInterval)
		s.prepare("new", "")
		synctest.Wait()
		assert.True(t, s.has(a) && s.has(b) && s.has(c) && s.has(old))
		assert.Contains(t, s.log.String(), "would not bring it below 80%")
		require.NoError(t, s.sn.Clean(s.ctx, nil))
		assert.False(t, s.has(old))
		s.requireInvariants()
	})
}

// Somebody destroys a cached template by hand. The next pull unpacks its layer, and a
// commit that would join it fails once.
func TestAWarmTemplateThatIsGone(t *testing.T) {
	t.Parallel()
	s := begin(t)
	a, _ := s.pull("default", "", chain("a"), "a;")
	gone := s.templateOf(a)
	s.remove(a)
	s.cleanup()
	s.pool.edit(func(state *fakeState) { delete(state.fs, gone) })
	name, unpacked := s.pull("default", "", chain("a"), "a;")
	assert.True(t, unpacked)
	assert.Contains(t, s.log.String(), "somebody destroyed a cached template")
	assert.Equal(t, gone, s.templateOf(name))

	joining := s.backend("default", "extract-2-abcd "+chain("a"))
	s.prepare(joining, "")
	s.remove(name)
	s.cleanup()
	s.pool.edit(func(state *fakeState) { delete(state.fs, gone) })
	joined := s.backend("default", chain("a"))
	err := s.sn.Commit(s.ctx, joined, joining)
	require.ErrorIs(t, err, errdefs.ErrNotFound)
	assert.ErrorContains(t, err, "somebody destroyed the cached template "+gone)
	s.commit(joined, joining)
	assert.Equal(t, gone, s.templateOf(joined))
	s.requireInvariants()
}

// A layer that is revived between the plan and its execution stays.
func TestReviveDuringASweep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := begin(t, settings(func(c *Config) { c.Pressure = 80 }))
		a, b, c := threeCached(s)
		s.resize(1000)
		asked := false
		s.pool.interrupt(func(call string) error {
			if call == "space" && !asked { // before the plan is made
				asked = true
				r := s.sn.index.template(c)
				s.sn.index.mu.Lock()
				r.pins++
				s.sn.index.mu.Unlock()
			}
			return nil
		})
		s.cleanup()
		s.pool.interrupt(nil)
		assert.True(t, s.has(c), "somebody is about to use it")
		assert.False(t, s.has(a) || s.has(b))
		s.sn.index.unpin(s.sn.index.template(c))
		s.requireInvariants()
	})
}

// What cannot be destroyed stays, is said once, and keeps nobody else.
func TestASweepOfWhatIsMounted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := begin(t, settings(func(c *Config) { c.Pressure = 80 }))
		a, b, c := threeCached(s)
		s.pool.edit(func(state *fakeState) { state.mounted[c] = true })
		s.resize(1100)
		s.cleanup()
		s.later()
		s.cleanup()
		assert.True(t, s.has(c) && s.has(a))
		assert.False(t, s.has(b), "the next goes in its place")
		assert.Equal(t, 1, strings.Count(s.log.String(), "could not be destroyed"), s.log.String())
		s.pool.edit(func(state *fakeState) { delete(state.mounted, c) })
		s.requireInvariants()
	})
}

// Pressure that stays because everything warm is in use is said once.
func TestASweepOfNothingButWhatIsMounted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := begin(t, settings(func(c *Config) { c.Pressure = 80 }))
		_, b, c := threeCached(s)
		s.pool.edit(func(state *fakeState) { state.mounted[b], state.mounted[c] = true, true })
		s.resize(1000)
		for range 3 {
			s.cleanup()
		}
		assert.Equal(t, 1, strings.Count(s.log.String(), "there is little room"), s.log.String())
		s.pool.edit(func(state *fakeState) { clear(state.mounted) })
		s.later()
		s.requireInvariants()
	})
}

func TestSettingsOfSweeps(t *testing.T) {
	t.Parallel()
	for _, pressure := range []int{-1, 101} {
		s := begin(t)
		require.NoError(t, s.sn.Close())
		s.with = func(c *Config) { c.Pressure = pressure }
		assert.ErrorContains(t, s.tryStart(), "no percentage")
	}
}

// A quota on <base>/runtime is relieved by nothing that is warm: that lies under storage.
func TestAQuotaOnRuntimesEvictsNoTemplates(t *testing.T) {
	t.Parallel()
	t.Run("pressure", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := begin(t, settings(func(c *Config) { c.Pressure = 80 }))
			a, b, c := threeCached(s)
			s.quota("tank/z/runtime", "700") // the container has 600 of it
			s.cleanup()
			s.cleanup()
			s.cleanup()
			assert.True(t, s.has(a) && s.has(b) && s.has(c), "left: %q\n%s", s.templates(), s.log)
		})
	})
	t.Run("no room", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := begin(t)
			a, b, c := threeCached(s)
			s.quota("tank/z/runtime", "600")
			s.pool.interrupt(func(call string) error {
				if call == "apply" {
					return fakeError("clone", "tank/z/runtime/x", zfs.ErrQuota)
				}
				return nil
			})
			require.ErrorIs(t, second(s.sn.Prepare(s.ctx, "x", "")), errdefs.ErrResourceExhausted)
			assert.True(t, s.has(a) && s.has(b) && s.has(c), "left: %q\n%s", s.templates(), s.log)
		})
	})
}

// A Prepare under pressure does not evict the very layer that it asks for.
func TestAPrepareUnderPressureKeepsWhatItAsksFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := begin(t, settings(func(c *Config) { c.Pressure = 80 }))
		_, _, c := threeCached(s)
		s.resize(1100)
		time.Sleep(pressureInterval)
		_, unpacked := s.pull("default", "", chain("c"), hundred)
		assert.False(t, unpacked, "the layer was in the pool: %s", s.log)
		synctest.Wait()
		assert.True(t, s.has(c))
	})
}
