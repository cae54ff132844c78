package snapshotter

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// marked is what the base says in the pool.
func (s *fixture) marked() (m Mark) {
	s.Helper()
	s.pool.edit(func(state *fakeState) { m = ParseMark(state.fs[s.base.String()].props[CleanupProperty]) })
	return m
}

// waitForJournal waits until what is written behind everybody's back is written.
func (s *fixture) waitForJournal() {
	time.Sleep(2 * journalDelay)
	synctest.Wait()
}

func TestMarks(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)
	for text, want := range map[string]Mark{
		"":                          {},
		"2026-11-21T10:00:00Z":      {Due: now},
		"2026-11-21T10:00:00Z abc":  {Due: now, List: "abc"},
		"2026-11-21T11:00:00+01:00": {Due: now},
		"tomorrow":                  {Due: time.Unix(0, 0).UTC()},
		"0001-01-01T00:00:00Z x":    {Due: time.Unix(0, 0).UTC()},
		strings.Repeat("x ", 4000):  {Due: time.Unix(0, 0).UTC()},
	} {
		assert.Equal(t, want, ParseMark(text), "%.40q", text)
	}
	for _, m := range []Mark{{}, {Due: now}, {Due: now, List: "abc"}} {
		assert.Equal(t, m, ParseMark(m.String()))
	}
	assert.True(t, Mark{Due: now}.IsDue(now))
	assert.False(t, Mark{Due: now}.IsDue(now.Add(-time.Second)))
	assert.False(t, Mark{}.IsDue(now))
}

// The base says that a cleanup is owed as soon as something may go, from when on,
// and no longer when all is done.
func TestTheBaseSaysWhatIsOwed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t, keepCached(time.Hour))
		s.waitForJournal()
		assert.Equal(t, Mark{}, s.marked(), "a fresh base")

		name, _ := s.pull("default", "", chain("a"), "a;") // what it was unpacked in is trash
		garbage := time.Now()
		s.waitForJournal()
		assert.Equal(t, Mark{Due: garbage.UTC()}, s.marked())
		s.cleanup()
		s.waitForJournal()
		assert.Equal(t, Mark{}, s.marked())

		s.remove(name)
		cached := time.Now()
		s.waitForJournal()
		assert.Equal(t, Mark{Due: cached.Add(time.Hour).UTC()}, s.marked(), "warm: not yet")
		s.prepare("web", "")
		s.remove("web")
		s.waitForJournal()
		assert.True(t, s.marked().IsDue(time.Now()), "trash: now")
		s.cleanup()
		s.waitForJournal()
		assert.Equal(t, Mark{Due: cached.Add(time.Hour).UTC()}, s.marked(), "what is warm is left")
		time.Sleep(time.Hour)
		s.cleanup()
		s.waitForJournal()
		assert.Equal(t, Mark{}, s.marked())
		s.requireInvariants()
	})
}

// A layer that changes nothing holds nothing, and gives nothing back: that is known
// of it when it was measured, and nobody is to measure it again.
func TestAnEmptyLayerIsOwedNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t, keepCached(KeepForever), settings(func(c *Config) { c.CacheMaxBytes = 1000 }))
		name, _ := s.pull("default", "", chain("a"), "")
		s.remove(name)
		s.waitForJournal()
		assert.True(t, s.marked().IsDue(time.Now()), "it is not measured yet")
		s.cleanup()
		s.waitForJournal()
		assert.Equal(t, Mark{}, s.marked())
	})
}

// What is evicted for want of room, beside a Prepare, is owed no more.
func TestAMarkBehindAnEviction(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t, keepCached(time.Hour), settings(func(c *Config) { c.Pressure = 80 }))
		name, _ := s.pull("default", "", chain("a"), strings.Repeat("a", 90))
		template := s.templateOf(name)
		s.cleanup()
		s.remove(name)
		s.waitForJournal()
		require.False(t, s.marked().Due.IsZero(), "it goes when an hour is over")
		s.resize(100)
		time.Sleep(pressureInterval)
		s.prepare("web", "")
		synctest.Wait()
		require.False(t, s.has(template))
		s.waitForJournal()
		assert.Equal(t, Mark{}, s.marked())
	})
}

// A machine that dies between the removal and the mark: the next start marks it.
func TestAMarkThatACrashKeptBackIsMadeGood(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t)
		s.prepare("web", "")
		s.remove("web")
		require.NoError(t, s.sn.journal.flush(s.ctx))
		s.crash()
		require.Equal(t, Mark{}, s.marked())
		s.waitForJournal()
		assert.True(t, s.marked().IsDue(time.Now()))
	})
}

// A mark that somebody else wrote is no harm.
func TestAStrangersMark(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t)
		s.prepare("web", "")
		s.remove("web")
		require.NoError(t, s.sn.Close())
		require.NoError(t, s.pool.Mark(s.ctx, s.base.String(), CleanupProperty, "whatever it is"))
		s.start()
		s.waitForJournal()
		assert.True(t, s.marked().IsDue(time.Now()))
		s.cleanup()
		s.waitForJournal()
		assert.Equal(t, Mark{}, s.marked())
	})
}

// A mark that could not be written is with the next removal.
func TestAMarkThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t, withList(t))
		s.pool.interrupt(func(call string) error {
			if call == "mark" {
				return fakeError(call, s.base.String(), zfs.ErrSuspended)
			}
			return nil
		})
		s.prepare("web", "")
		s.remove("web")
		s.waitForJournal()
		assert.Equal(t, Mark{}, s.marked())
		s.pool.interrupt(nil)
		s.prepare("web", "")
		s.remove("web")
		s.waitForJournal()
		assert.True(t, s.marked().IsDue(time.Now()))
	})
}

// trash is how many datasets wait to be destroyed.
func (s *fixture) garbage() int {
	s.sn.index.mu.RLock()
	defer s.sn.index.mu.RUnlock()
	return len(s.sn.index.garbage)
}

// What became trash while cached templates were evicted is not forgotten: it is cleaned
// up by itself or, where somebody else is to say when, marked.
func TestTrashBesideAnEviction(t *testing.T) {
	t.Parallel()
	for mode, want := range map[CleanupMode]func(s *fixture){
		CleanupBackground: func(s *fixture) { assert.Zero(s, s.garbage(), "an hour later") },
		CleanupManual: func(s *fixture) {
			assert.True(s, s.marked().IsDue(time.Now()), "%v, trash %d", s.marked(), s.garbage())
		},
	} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newFixture(t, settings(func(c *Config) { c.Pressure, c.Cleanup = 80, mode }))
				a, _ := s.pull("default", "", chain("a"), strings.Repeat(hundred, 3))
				s.prepare("web", "")
				s.write("web", strings.Repeat(hundred, 6))
				require.NoError(t, s.sn.Clean(s.ctx, nil)) // what it was unpacked in
				s.remove(a)
				time.Sleep(time.Minute)
				require.Equal(t, Mark{}, s.marked())
				s.resize(1100)
				s.pool.interrupt(func(call string) error {
					if call == "destroy" {
						time.Sleep(2 * time.Second) // a disk that is busy
					}
					return nil
				})
				done := make(chan error, 1)
				go func() { done <- second(s.sn.Prepare(s.ctx, "new", "")) }()
				synctest.Wait()
				s.commit("saved", "web") // its runtime is trash
				require.NoError(t, <-done)
				time.Sleep(5 * time.Second) // the eviction ends
				s.pool.interrupt(nil)
				require.Equal(t, 1, s.garbage())
				time.Sleep(time.Hour)
				synctest.Wait()
				want(s)
			})
		})
	}
}
