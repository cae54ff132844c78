package snapshotter

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// marked is what the base says in the pool.
func (s *story) marked() (m Mark) {
	s.Helper()
	s.pool.edit(func(state *fakeState) { m = ParseMark(state.fs[s.base.String()].props[CleanupProperty]) })
	return m
}

// settled waits until what is written behind everybody's back is written.
func (s *story) settled() {
	time.Sleep(2 * removalDelay)
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
	assert.True(t, Mark{Due: now}.Owed(now))
	assert.False(t, Mark{Due: now}.Owed(now.Add(-time.Second)))
	assert.False(t, Mark{}.Owed(now))
}

// The base says that a cleanup is owed as soon as something may go, from when on,
// and no longer when all is done.
func TestTheBaseSaysWhatIsOwed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := begin(t, keepWarm(time.Hour))
		s.settled()
		assert.Equal(t, Mark{}, s.marked(), "a fresh base")

		name, _ := s.pull("default", "", chain("a"), "a;") // what it was unpacked in is trash
		trash := time.Now()
		s.settled()
		assert.Equal(t, Mark{Due: trash.UTC()}, s.marked())
		s.cleanup()
		s.settled()
		assert.Equal(t, Mark{}, s.marked())

		s.remove(name)
		warm := time.Now()
		s.settled()
		assert.Equal(t, Mark{Due: warm.Add(time.Hour).UTC()}, s.marked(), "warm: not yet")
		s.prepare("web", "")
		s.remove("web")
		s.settled()
		assert.True(t, s.marked().Owed(time.Now()), "trash: now")
		s.cleanup()
		s.settled()
		assert.Equal(t, Mark{Due: warm.Add(time.Hour).UTC()}, s.marked(), "what is warm is left")
		time.Sleep(time.Hour)
		s.cleanup()
		s.settled()
		assert.Equal(t, Mark{}, s.marked())
		s.requireInvariants()
	})
}

// A layer that changes nothing holds nothing, and gives nothing back: that is known
// of it when it was measured, and nobody is to measure it again.
func TestAnEmptyLayerIsOwedNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := begin(t, keepWarm(KeepForever), settings(func(c *Config) { c.WarmMaxBytes = 1000 }))
		name, _ := s.pull("default", "", chain("a"), "")
		s.remove(name)
		s.settled()
		assert.True(t, s.marked().Owed(time.Now()), "it is not measured yet")
		s.cleanup()
		s.settled()
		assert.Equal(t, Mark{}, s.marked())
	})
}

// What is evicted for want of room, beside a Prepare, is owed no more.
func TestAMarkBehindAnEviction(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := begin(t, keepWarm(time.Hour), settings(func(c *Config) { c.Pressure = 80 }))
		name, _ := s.pull("default", "", chain("a"), strings.Repeat("a", 90))
		template := s.templateOf(name)
		s.cleanup()
		s.remove(name)
		s.settled()
		require.False(t, s.marked().Due.IsZero(), "it goes when an hour is over")
		s.resize(100)
		time.Sleep(gaugeFresh)
		s.prepare("web", "")
		require.False(t, s.has(template))
		s.settled()
		assert.Equal(t, Mark{}, s.marked())
	})
}

// A machine that dies between the removal and the mark: the next start marks it.
func TestAMarkThatACrashKeptBackIsMadeGood(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := begin(t)
		s.prepare("web", "")
		s.remove("web")
		require.NoError(t, s.sn.queue.flush(s.ctx))
		s.crash()
		require.Equal(t, Mark{}, s.marked())
		s.settled()
		assert.True(t, s.marked().Owed(time.Now()))
	})
}

// A mark that somebody else wrote is no harm.
func TestAStrangersMark(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := begin(t)
		s.prepare("web", "")
		s.remove("web")
		require.NoError(t, s.sn.Close())
		require.NoError(t, s.pool.Mark(s.ctx, s.base.String(), CleanupProperty, "whatever it is"))
		s.start()
		s.settled()
		assert.True(t, s.marked().Owed(time.Now()))
		s.cleanup()
		s.settled()
		assert.Equal(t, Mark{}, s.marked())
	})
}

func withList(t testing.TB) func(*story) {
	path := filepath.Join(t.TempDir(), "list")
	return settings(func(c *Config) { c.CleanupList = path })
}

// resume is a cleaner as the command has one when no daemon runs.
func (s *story) resume() *Cleaner {
	s.Helper()
	s.pool.owner.Store(nil)
	c, err := Resume(s.ctx, s.pool, s.config(), s.marked())
	require.NoError(s, err)
	return c
}

// listings counts the listings of the whole base from now on.
func (s *story) listings() *int {
	n := new(int)
	s.pool.listed = func(root string) {
		if root == s.base.String() {
			*n++
		}
	}
	return n
}

// What a snapshotter knew when it was closed is enough to clean up, without
// listing the pool; what is left then is kept again.
func TestCleanupGoesOnFromAList(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := begin(t, withList(t), keepWarm(time.Hour))
		a, _ := s.pull("default", "", chain("a"), hundred)
		b, _ := s.pull("default", a, chain("b"), hundred)
		s.layer("saved", a, "x;")
		s.prepare("web", "")
		s.prepare("db", a)
		s.remove("saved", "web", b)
		require.NoError(t, s.sn.Close())
		assert.NotEmpty(t, s.marked().List)
		assert.True(t, s.marked().Owed(time.Now()))

		n := s.listings()
		c := s.resume()
		require.NotNil(t, c, "the list holds")
		assert.Empty(t, s.marked().List, "and no longer: it is being used up")
		var last Progress
		require.NoError(t, c.Clean(s.ctx, func(p Progress) { last = p }))
		assert.Equal(t, Progress{Looked: 5, Of: 5, Destroyed: 5}, last, "web, saved and what three commits were made in")
		require.NoError(t, c.Close())
		assert.Zero(t, *n)
		assert.Len(t, s.templates(), 3, "empty, a and b, which is warm")
		warm := s.marked()
		assert.True(t, warm.Due.After(time.Now()))

		time.Sleep(time.Hour)
		c = s.resume()
		require.NotNil(t, c)
		require.NoError(t, c.Clean(s.ctx, nil))
		require.NoError(t, c.Close())
		assert.Len(t, s.templates(), 2, "empty and a, on which db stands")
		assert.Equal(t, Mark{}, s.marked())
		assert.NoFileExists(t, s.config().CleanupList)
		assert.Zero(t, *n)
		s.start()
		assert.ElementsMatch(t, []string{a, "db"}, s.names())
		s.requireInvariants()
	})
}

// A list holds for as long as nobody else had the base open, and only whole.
func TestAListThatDoesNotHold(t *testing.T) {
	t.Parallel()
	for what, spoil := range map[string]func(s *story){
		"opened since":   func(s *story) { s.start() },
		"another mark":   func(s *story) { _ = s.pool.Mark(s.ctx, s.base.String(), CleanupProperty, stamp(time.Now())+" abc") },
		"no mark":        func(s *story) { _ = s.pool.Mark(s.ctx, s.base.String(), CleanupProperty, "") },
		"changed":        func(s *story) { _ = os.WriteFile(s.config().CleanupList, []byte(`{"go":[]}`), 0o600) },
		"gone":           func(s *story) { _ = os.Remove(s.config().CleanupList) },
		"a directory":    func(s *story) { _ = os.Remove(s.config().CleanupList); _ = os.Mkdir(s.config().CleanupList, 0o700) },
		"half of it":     func(s *story) { _ = os.Truncate(s.config().CleanupList, 10) },
		"none is wanted": func(s *story) { s.with = nil },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := begin(t, withList(t))
				s.prepare("web", "")
				s.remove("web")
				require.NoError(t, s.sn.Close())
				require.NotEmpty(t, s.marked().List)
				spoil(s)
				assert.Nil(t, s.resume())
			})
		})
	}
}

// Every entry is looked at again: what is needed after all stays.
func TestAnEntryThatIsNeededAfterAllStays(t *testing.T) {
	t.Parallel()
	record := `1 {"seq":9,"kind":"committed","name":"mine"}`
	for what, change := range map[string]struct {
		to   func(s *story, dataset string)
		says string
	}{
		"a record": {func(s *story, d string) {
			s.pool.editFS(d, func(fs *fakeFS) { fs.props[propRecord+anID("1")] = record })
		}, `the record of \"mine\"`},
		"a record nobody can read": {func(s *story, d string) { s.pool.editFS(d, func(fs *fakeFS) { fs.props[propRecord+anID("1")] = "x" }) },
			"does not begin with its number"},
		"no mark": {func(s *story, d string) { s.pool.editFS(d, func(fs *fakeFS) { delete(fs.props, propTrash) }) }, "no trash mark"},
		"a dataset in it": {func(s *story, d string) {
			s.pool.edit(func(state *fakeState) { state.create(d+"/mine", nil) })
		}, "datasets in it"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := begin(t, withList(t))
			s.prepare("web", "")
			s.prepare("db", "")
			dataset, other := s.dataset("web"), s.dataset("db")
			s.remove("web", "db")
			require.NoError(t, s.sn.Close())
			change.to(s, dataset)
			c := s.resume()
			require.NotNil(t, c)
			require.NoError(t, c.Clean(s.ctx, nil))
			require.NoError(t, c.Close())
			assert.Contains(t, s.datasets(), dataset)
			assert.NotContains(t, s.datasets(), other)
			assert.Contains(t, s.log.String(), change.says)
			assert.Equal(t, Mark{}, s.marked(), "it is nobody's to destroy")
		})
	}
}

// A crash anywhere while a list is used up leaves what the next start understands.
func TestCrashDuringACleanupFromAList(t *testing.T) {
	t.Parallel()
	for cut := 0; ; cut++ {
		require.Less(t, cut, 40)
		s := begin(t, withList(t), keepWarm(0))
		for i := range quietBatch + 10 {
			s.prepare(fmt.Sprint(i), "")
			s.remove(fmt.Sprint(i))
		}
		s.layer("kept", "", "k;")
		require.NoError(t, s.sn.Close())
		c := s.resume()
		require.NotNil(t, c)
		s.pool.cut = cut
		err := c.Clean(s.ctx, nil)
		over := !s.pool.dead
		s.crash()
		s.pool.cut = -1
		assert.Equal(t, []string{"kept"}, s.names())
		s.requireInvariants()
		if over {
			require.NoError(t, err)
			return
		}
		assert.Nil(t, s.resume(), "the list holds no more")
	}
}

// In the background a cleanup begins when nobody has written for a while, and on a
// machine that is never quiet some time later all the same; by hand only when
// somebody says so.
func TestCleanupModes(t *testing.T) {
	t.Parallel()
	background := settings(func(c *Config) { c.Cleanup = CleanupBackground })
	gone := func(s *story) bool { synctest.Wait(); return len(s.datasets()) == 1 }
	trash := func(s *story) {
		s.prepare("gone", "")
		s.remove("gone")
		require.NoError(s, s.sn.Cleanup(s.ctx))
	}
	t.Run("background, quiet", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := begin(t, background)
			trash(s)
			time.Sleep(backgroundQuiet - time.Second)
			assert.False(t, gone(s))
			time.Sleep(2 * time.Second)
			assert.True(t, gone(s))
		})
	})
	t.Run("background, while something is written", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := begin(t, background)
			end := s.sn.Begin(s.ctx)
			trash(s)
			time.Sleep(backgroundPatience - time.Second)
			assert.False(t, gone(s))
			end()
			time.Sleep(backgroundQuiet + time.Second)
			assert.True(t, gone(s))
		})
	})
	t.Run("background, never quiet", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := begin(t, background)
			defer s.sn.Begin(s.ctx)()
			trash(s)
			time.Sleep(backgroundPatience + 2*time.Second)
			assert.True(t, gone(s))
		})
	})
	t.Run("background, what expires", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := begin(t, background, keepWarm(time.Hour))
			name, _ := s.pull("default", "", chain("a"), "a;")
			s.remove(name)
			time.Sleep(time.Hour - time.Second)
			assert.False(t, gone(s))
			time.Sleep(5 * time.Second)
			assert.True(t, gone(s))
		})
	})
	t.Run("background, stopped", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := begin(t, background)
			trash(s)
			letGo := s.slow("destroy")
			time.Sleep(backgroundQuiet + time.Second)
			synctest.Wait()
			assert.True(t, s.sn.StopCleanup())
			letGo()
			s.pool.interrupt(nil)
			synctest.Wait()
			s.prepare("more", "")
			s.remove("more")
			time.Sleep(time.Hour)
			assert.False(t, gone(s), "until somebody asks for it")
			assert.False(t, s.sn.StopCleanup(), "there is none")
			require.NoError(t, s.sn.Cleanup(s.ctx))
			time.Sleep(backgroundQuiet + time.Second)
			assert.True(t, gone(s))
		})
	})
	t.Run("manual", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := begin(t, settings(func(c *Config) { c.Cleanup = CleanupManual }))
			trash(s)
			time.Sleep(1000 * time.Hour)
			assert.False(t, gone(s))
			require.NoError(t, s.sn.Clean(s.ctx, nil))
			assert.True(t, gone(s))
		})
	})
	t.Run("no mode", func(t *testing.T) {
		t.Parallel()
		s := begin(t)
		require.NoError(t, s.sn.Close())
		s.with = func(c *Config) { c.Cleanup = "never" }
		require.ErrorIs(t, s.tryStart(), errdefs.ErrInvalidArgument)
	})
}

// Whoever waits for a cleanup does not wait for one in the background.
func TestABackgroundCleanupMakesWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := begin(t, settings(func(c *Config) { c.Cleanup = CleanupBackground }))
		for i := range 2 * quietBatch {
			s.prepare(fmt.Sprint(i), "")
			s.remove(fmt.Sprint(i))
		}
		letGo := s.slow("destroy")
		time.Sleep(backgroundQuiet + time.Second)
		synctest.Wait()
		answer := make(chan error, 1)
		go func() { answer <- s.sn.Clean(s.ctx, nil) }()
		synctest.Wait()
		letGo()
		s.pool.interrupt(nil)
		require.NoError(t, <-answer)
		assert.Len(t, s.datasets(), 1)
		assert.NotContains(t, s.log.String(), "could not be done")
	})
}

// A cleanup that is stopped, or whose caller goes away, ends behind the batch it is
// at, says so, and the next one does the rest.
func TestACleanupIsStopped(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		stop func(s *story, cancel func())
		want error
	}{
		"by command": {func(s *story, _ func()) { assert.True(s, s.sn.StopCleanup()) }, errdefs.ErrAborted},
		"its caller": {func(_ *story, cancel func()) { cancel() }, context.Canceled},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := begin(t)
				for i := range 2 * quietBatch {
					s.prepare(fmt.Sprint(i), "")
					s.remove(fmt.Sprint(i))
				}
				time.Sleep(2 * quietFor)
				letGo := s.slow("destroy")
				ctx, cancel := context.WithCancel(s.ctx)
				answer := make(chan error, 1)
				go func() { answer <- s.sn.Clean(ctx, nil) }()
				synctest.Wait()
				c.stop(s, cancel)
				letGo()
				s.pool.interrupt(nil)
				require.ErrorIs(t, <-answer, c.want)
				assert.Len(t, s.datasets(), 1+quietBatch)
				s.requireInvariants()
				s.cleanup()
				assert.Len(t, s.datasets(), 1)
			})
		})
	}
}

// Whoever writes a file into a pool that is suspended waits for its disks: Close
// does not.
func TestASuspendedPoolGetsNoList(t *testing.T) {
	t.Parallel()
	s := begin(t, withList(t))
	s.prepare("web", "")
	s.remove("web")
	require.NoError(t, s.sn.queue.flush(s.ctx))
	s.pool.edit(func(state *fakeState) { state.asleep = true })
	require.NoError(t, s.sn.Close())
	assert.NoFileExists(t, s.config().CleanupList)
}

// A mark that could not be written is with the next removal.
func TestAMarkThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := begin(t, withList(t))
		s.pool.interrupt(func(call string) error {
			if call == "mark" {
				return fakeError(call, s.base.String(), zfs.ErrSuspended)
			}
			return nil
		})
		s.prepare("web", "")
		s.remove("web")
		s.settled()
		assert.Equal(t, Mark{}, s.marked())
		s.pool.interrupt(nil)
		s.prepare("web", "")
		s.remove("web")
		s.settled()
		assert.True(t, s.marked().Owed(time.Now()))
	})
}

// trash is how many datasets wait to be destroyed.
func (s *story) trash() int {
	s.sn.index.mu.RLock()
	defer s.sn.index.mu.RUnlock()
	return len(s.sn.index.trash)
}

// What became trash while warm templates were evicted is not forgotten.
func TestTrashBesideAnEviction(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := begin(t, settings(func(c *Config) { c.Pressure, c.Cleanup = 80, CleanupBackground }))
		a, _ := s.pull("default", "", chain("a"), strings.Repeat(hundred, 3))
		s.prepare("web", "")
		s.write("web", strings.Repeat(hundred, 6))
		time.Sleep(time.Minute) // what it was unpacked in has gone
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
		s.pool.interrupt(nil)
		require.Equal(t, 1, s.trash())
		time.Sleep(time.Hour)
		synctest.Wait()
		assert.Zero(t, s.trash(), "an hour later")
	})
}

// The same for the mark, in mode manual.
func TestAMarkOfTrashBesideAnEviction(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := begin(t, settings(func(c *Config) { c.Pressure, c.Cleanup = 80, CleanupManual }))
		a, _ := s.pull("default", "", chain("a"), strings.Repeat(hundred, 3))
		s.prepare("web", "")
		s.write("web", strings.Repeat(hundred, 6))
		require.NoError(t, s.sn.Clean(s.ctx, nil))
		s.remove(a)
		time.Sleep(time.Minute)
		require.Equal(t, Mark{}, s.marked())
		s.resize(1100)
		s.pool.interrupt(func(call string) error {
			if call == "destroy" {
				time.Sleep(2 * time.Second)
			}
			return nil
		})
		done := make(chan error, 1)
		go func() { done <- second(s.sn.Prepare(s.ctx, "new", "")) }()
		synctest.Wait()
		s.commit("saved", "web")
		require.NoError(t, <-done)
		s.pool.interrupt(nil)
		time.Sleep(time.Hour)
		synctest.Wait()
		assert.True(t, s.marked().Owed(time.Now()), "%v, trash %d", s.marked(), s.trash())
	})
}
