package snapshotter

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/internal/journal"
	"github.com/zfstpl/zfstpl/snapshotter/internal/reaper"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
	"github.com/zfstpl/zfstpl/snapshotter/zfs/zfsfake"
)

// marked returns the cleanup mark of the base in the pool.
func (s *fixture) marked() (m layout.CleanupMark) {
	s.Helper()
	s.pool.Edit(func(state *zfsfake.State) {
		m = layout.ParseCleanupMark(state.FS[s.base.String()].Props[layout.CleanupProperty])
	})
	return m
}

// waitForJournal waits until the background goroutine has written the journal.
func (s *fixture) waitForJournal() {
	time.Sleep(2 * journal.Delay)
	synctest.Wait()
}

func TestMarksSurviveRoundTrip(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)
	for text, want := range map[string]layout.CleanupMark{
		"":                          {},
		"2026-11-21T10:00:00Z":      {Due: now},
		"2026-11-21T10:00:00Z abc":  {Due: now, List: "abc"},
		"2026-11-21T11:00:00+01:00": {Due: now},
		"tomorrow":                  {Due: time.Unix(0, 0).UTC()},
		"0001-01-01T00:00:00Z x":    {Due: time.Unix(0, 0).UTC()},
		strings.Repeat("x ", 4000):  {Due: time.Unix(0, 0).UTC()},
	} {
		assert.Equal(t, want, layout.ParseCleanupMark(text), "%.40q", text)
	}
	for _, m := range []layout.CleanupMark{{}, {Due: now}, {Due: now, List: "abc"}} {
		assert.Equal(t, m, layout.ParseCleanupMark(m.String()))
	}
	assert.True(t, layout.CleanupMark{Due: now}.IsDue(now))
	assert.False(t, layout.CleanupMark{Due: now}.IsDue(now.Add(-time.Second)))
	assert.False(t, layout.CleanupMark{}.IsDue(now))
}

// The base has a cleanup mark while there is garbage or a cached template that expires. The
// mark has the time from which a cleanup is due.
func TestMarkHasTheTimeOfTheNextCleanup(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t, keepCached(time.Hour))
		s.waitForJournal()
		assert.Equal(t, layout.CleanupMark{}, s.marked(), "a new base")

		name, _ := s.pull("default", "", chain("a"), "a;") // its runtime is garbage
		garbage := time.Now()
		s.waitForJournal()
		assert.Equal(t, layout.CleanupMark{Due: garbage.UTC()}, s.marked())
		s.cleanup()
		s.waitForJournal()
		assert.Equal(t, layout.CleanupMark{}, s.marked())

		s.remove(name)
		cached := time.Now()
		s.waitForJournal()
		assert.Equal(t, layout.CleanupMark{Due: cached.Add(time.Hour).UTC()}, s.marked(), "the template expires later")
		s.prepare("web", "")
		s.remove("web")
		s.waitForJournal()
		assert.True(t, s.marked().IsDue(time.Now()), "garbage: a cleanup is due")
		s.cleanup()
		s.waitForJournal()
		assert.Equal(t, layout.CleanupMark{Due: cached.Add(time.Hour).UTC()}, s.marked(), "the cached template is left")
		time.Sleep(time.Hour)
		s.cleanup()
		s.waitForJournal()
		assert.Equal(t, layout.CleanupMark{}, s.marked())
		s.requireInvariants()
	})
}

// A cached layer without bytes needs a cleanup to be measured, and none after that.
func TestMeasuredEmptyLayerNeedsNoCleanup(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t, keepCached(KeepForever), settings(func(c *Config) { c.CacheMaxBytes = 1000 }))
		name, _ := s.pull("default", "", chain("a"), "")
		s.remove(name)
		s.waitForJournal()
		assert.True(t, s.marked().IsDue(time.Now()), "it is not measured yet")
		s.cleanup()
		s.waitForJournal()
		assert.Equal(t, layout.CleanupMark{}, s.marked())
	})
}

// An eviction under pressure updates the cleanup mark.
func TestEvictionUpdatesTheMark(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t, keepCached(time.Hour), settings(func(c *Config) { c.Pressure = 80 }))
		name, _ := s.pull("default", "", chain("a"), strings.Repeat("a", 90))
		template := s.templateOf(name)
		s.cleanup()
		s.remove(name)
		s.waitForJournal()
		require.False(t, s.marked().Due.IsZero(), "it expires after an hour")
		s.resize(100)
		time.Sleep(reaper.PressureInterval)
		s.prepare("web", "")
		s.pressureChecked()
		require.False(t, s.has(template))
		s.waitForJournal()
		assert.Equal(t, layout.CleanupMark{}, s.marked())
	})
}

// After a crash between the removal and the mark, the next start writes the mark.
func TestStartWritesMissingMark(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t)
		s.prepare("web", "")
		s.remove("web")
		s.flush()
		s.crash()
		require.Equal(t, layout.CleanupMark{}, s.marked())
		s.waitForJournal()
		assert.True(t, s.marked().IsDue(time.Now()))
	})
}

func TestStartReplacesInvalidMark(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t)
		s.prepare("web", "")
		s.remove("web")
		require.NoError(t, s.sn.Close())
		require.NoError(t, s.pool.Mark(s.ctx, s.base.String(), layout.CleanupProperty, "whatever it is"))
		s.start()
		s.waitForJournal()
		assert.True(t, s.marked().IsDue(time.Now()))
		s.cleanup()
		s.waitForJournal()
		assert.Equal(t, layout.CleanupMark{}, s.marked())
	})
}

// A mark that could not be written is written with the next removal.
func TestMarkIsWrittenAgainAfterFailure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t, withList(t))
		end := s.pool.FailAt(zfsfake.Before(zfsfake.Mark), zfsfake.Refuse(zfs.ErrSuspended))
		s.prepare("web", "")
		s.remove("web")
		s.waitForJournal()
		assert.Equal(t, layout.CleanupMark{}, s.marked())
		end()
		s.prepare("web", "")
		s.remove("web")
		s.waitForJournal()
		assert.True(t, s.marked().IsDue(time.Now()))
	})
}

// garbage returns the number of datasets that are garbage.
func (s *fixture) garbage() int {
	n := 0
	for _, line := range dump(s.sn) {
		if strings.HasPrefix(line, "garbage ") {
			n++
		}
	}
	return n
}

// A dataset that becomes garbage during an eviction is destroyed by a background cleanup or,
// in manual mode, causes a cleanup mark.
func TestGarbageDuringAnEvictionIsNotForgotten(t *testing.T) {
	t.Parallel()
	for mode, want := range map[CleanupMode]func(s *fixture){
		CleanupBackground: func(s *fixture) { assert.Zero(s, s.garbage(), "after an hour") },
		CleanupManual: func(s *fixture) {
			assert.True(s, s.marked().IsDue(time.Now()), "%v, garbage %d", s.marked(), s.garbage())
		},
	} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newFixture(t, settings(func(c *Config) { c.Pressure, c.Cleanup = 80, mode }))
				a, _ := s.pull("default", "", chain("a"), strings.Repeat(hundred, 3))
				s.prepare("web", "")
				s.write("web", strings.Repeat(hundred, 6))
				require.NoError(t, s.sn.Clean(s.ctx, nil)) // the runtime in which it was unpacked
				s.remove(a)
				time.Sleep(time.Minute)
				require.Equal(t, layout.CleanupMark{}, s.marked())
				s.resize(1100)
				end := s.pool.FailAt(zfsfake.Before(zfsfake.Destroy), zfsfake.Do(func() error {
					time.Sleep(2 * time.Second) // a disk that is busy
					return nil
				}))
				done := make(chan error, 1)
				go func() { done <- second(s.sn.Prepare(s.ctx, "new", "")) }()
				s.pressureChecked()
				s.commit("saved", "web") // its runtime becomes garbage
				require.NoError(t, <-done)
				time.Sleep(5 * time.Second) // the eviction ends
				end()
				require.Equal(t, 1, s.garbage())
				time.Sleep(time.Hour)
				synctest.Wait()
				want(s)
			})
		})
	}
}
