package snapshotter

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zfstpl/zfstpl/snapshotter/internal/reaper"
	"github.com/zfstpl/zfstpl/snapshotter/internal/record"
	"github.com/zfstpl/zfstpl/snapshotter/zfs/zfsfake"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
)

// withList returns an option that lets the snapshotter save a cleanup list.
func withList(t testing.TB) func(*fixture) {
	dir, err := os.OpenRoot(t.TempDir())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, dir.Close()) })
	return settings(func(c *Config) { c.Root = dir })
}

// listPath returns the path of the list.
func (s *fixture) listPath() string {
	return filepath.Join(s.config().Root.Name(), reaper.ListName)
}

// resume returns the cleaner of a command that runs without a daemon.
func (s *fixture) resume() *Cleaner {
	s.Helper()
	s.pool.Keep(nil)
	c, err := Resume(s.ctx, s.pool, s.config(), s.marked())
	require.NoError(s, err)
	return c
}

// listings counts the listings of the whole base from now on.
func (s *fixture) listings() (n func() int) {
	return s.pool.Count(zfsfake.Before(zfsfake.List).Of(s.base.String()))
}

// A cleanup with the list that a snapshotter saved does not list the pool. It saves a list of
// the datasets that are left.
func TestCleanerUsesTheSavedList(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t, withList(t), keepCached(time.Hour))
		a, _ := s.pull("default", "", chain("a"), hundred)
		b, _ := s.pull("default", a, chain("b"), hundred)
		s.layer("saved", a, "x;")
		s.prepare("web", "")
		s.prepare("db", a)
		s.remove("saved", "web", b)
		require.NoError(t, s.sn.Close())
		assert.NotEmpty(t, s.marked().List)
		assert.True(t, s.marked().IsDue(time.Now()))

		n := s.listings()
		c := s.resume()
		require.NotNil(t, c, "the list is valid")
		assert.Empty(t, s.marked().List, "the list is not valid any more")
		var last reaper.Progress
		require.NoError(t, c.Clean(s.ctx, func(p reaper.Progress) { last = p }))
		assert.Equal(t, reaper.Progress{Looked: 5, Of: 5, Destroyed: 5}, last, "web, saved and the runtimes of three commits")
		require.NoError(t, c.Close())
		assert.Zero(t, n())
		assert.Len(t, s.templates(), 3, "empty, a and the cached b")
		cached := s.marked()
		assert.True(t, cached.Due.After(time.Now()))

		time.Sleep(time.Hour)
		c = s.resume()
		require.NotNil(t, c)
		require.NoError(t, c.Clean(s.ctx, nil))
		require.NoError(t, c.Close())
		assert.Len(t, s.templates(), 2, "empty and a, the template of db")
		assert.Equal(t, layout.CleanupMark{}, s.marked())
		assert.NoFileExists(t, s.listPath())
		assert.Zero(t, n())
		s.start()
		assert.ElementsMatch(t, []string{a, "db"}, s.names())
		s.requireInvariants()
	})
}

// A list is valid only if it is complete and no snapshotter has opened the base since.
func TestResumeRefusesInvalidLists(t *testing.T) {
	t.Parallel()
	for what, spoil := range map[string]func(s *fixture){
		"opened since": func(s *fixture) { s.start() },
		"another mark": func(s *fixture) {
			_ = s.pool.Mark(s.ctx, s.base.String(), layout.CleanupProperty, layout.FormatTime(time.Now())+" abc")
		},
		"no mark":           func(s *fixture) { _ = s.pool.Mark(s.ctx, s.base.String(), layout.CleanupProperty, "") },
		"changed":           func(s *fixture) { _ = os.WriteFile(s.listPath(), []byte(`{"go":[]}`), 0o600) },
		"missing":           func(s *fixture) { _ = os.Remove(s.listPath()) },
		"a directory":       func(s *fixture) { _ = os.Remove(s.listPath()); _ = os.Mkdir(s.listPath(), 0o700) },
		"truncated":         func(s *fixture) { _ = os.Truncate(s.listPath(), 10) },
		"no root directory": func(s *fixture) { s.with = nil },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newFixture(t, withList(t))
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

// The cleaner checks each dataset of the list again and keeps those in use.
func TestCleanerKeepsListedDatasetsInUse(t *testing.T) {
	t.Parallel()
	committed := `1 {"seq":9,"kind":"committed","name":"mine"}`
	for what, change := range map[string]struct {
		to   func(s *fixture, dataset string)
		says string
	}{
		"a record": {func(s *fixture, d string) {
			s.pool.EditFS(d, func(fs *zfsfake.FS) { fs.Props[record.Property+testID("1")] = committed })
		}, `the record of \"mine\"`},
		"an unreadable record": {func(s *fixture, d string) {
			s.pool.EditFS(d, func(fs *zfsfake.FS) { fs.Props[record.Property+testID("1")] = "x" })
		},
			"does not begin with the number"},
		"no template as origin": {func(s *fixture, d string) {
			s.pool.EditFS(d, func(fs *zfsfake.FS) { fs.Origin = "" })
		}, "not a clone of a template"},
		"a child dataset": {func(s *fixture, d string) {
			s.pool.Edit(func(state *zfsfake.State) { state.Create(d+"/mine", nil) })
		}, "child datasets"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := newFixture(t, withList(t))
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
			assert.Equal(t, layout.CleanupMark{}, s.marked(), "the kept dataset is not garbage")
		})
	}
}

// After a crash at any time during a cleanup with a list, a start recovers the base.
func TestCrashDuringCleanupWithAListIsRecovered(t *testing.T) {
	t.Parallel()
	for cut := range zfsfake.Each(t, zfsfake.Before(zfsfake.Transaction)) {
		s := newFixture(t, withList(t), keepCached(0))
		for i := range reaper.QuietBatch + 10 {
			s.prepare(fmt.Sprint(i), "")
			s.remove(fmt.Sprint(i))
		}
		s.layer("kept", "", "k;")
		require.NoError(t, s.sn.Close())
		c := s.resume()
		require.NotNil(t, c)
		s.pool.FailAt(cut.Point, zfsfake.Crash())
		err := c.Clean(s.ctx, nil)
		s.crash()
		assert.Equal(t, []string{"kept"}, s.names())
		s.requireInvariants()
		if !cut.Reached() {
			require.NoError(t, err)
			continue
		}
		assert.Nil(t, s.resume(), "the list is not valid any more")
	}
}

// A write to a file of a suspended pool blocks, so Close does not save a list then.
func TestCloseSavesNoListOnSuspendedPool(t *testing.T) {
	t.Parallel()
	s := newFixture(t, withList(t))
	s.prepare("web", "")
	s.remove("web")
	s.flush()
	s.pool.Edit(func(state *zfsfake.State) { state.Suspended = true })
	require.NoError(t, s.sn.Close())
	assert.NoFileExists(t, s.listPath())
}

// Close removes the temporary files of a killed Close, and no other files.
func TestCloseRemovesTemporaryLists(t *testing.T) {
	t.Parallel()
	s := newFixture(t, withList(t))
	list := s.listPath()
	dir := filepath.Dir(list)
	for name, removed := range map[string]bool{filepath.Base(list) + ".123": true, filepath.Base(list) + ".456": true, "mine.json": false, "x" + filepath.Base(list) + ".1": false} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
		defer func() {
			_, err := os.Stat(filepath.Join(dir, name))
			assert.Equal(t, removed, os.IsNotExist(err), name)
		}()
	}
	require.NoError(t, os.Mkdir(list+".d", 0o700))
	s.prepare("web", "")
	s.remove("web")
	require.NoError(t, s.sn.Close())
	assert.FileExists(t, list)
	assert.DirExists(t, list+".d")
}
