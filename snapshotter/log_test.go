package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/zfstpl/zfstpl/integration/model"
	"github.com/zfstpl/zfstpl/snapshotter/internal/journal"
	"github.com/zfstpl/zfstpl/snapshotter/internal/recordlog"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
	"github.com/zfstpl/zfstpl/snapshotter/zfs/zfsfake"
)

func (s *fixture) logPath() string { return filepath.Join(s.root.Name(), recordlog.Name) }

func (s *fixture) logBytes() []byte {
	s.Helper()
	b, err := os.ReadFile(s.logPath())
	require.NoError(s, err)
	return b
}

// Changes of records cause no transaction, and are durable when the call returns.
func TestChangesOfRecordsWaitForTheLogOnly(t *testing.T) {
	t.Parallel()
	s := newFixture(t, withLog, func(s *fixture) { s.pool = zfsfake.New(s, zfsfake.LosesWrites) })
	name, _ := s.pull("default", "", chain("a"), "a;")
	s.prepare("web", name)
	s.prepare("default/8/extract-1-x "+chain("a"), "", ref(chain("a")), label(ReuseLabel, "off"))
	transactions, syncs := s.pool.Count(zfsfake.Before(zfsfake.Transaction)), s.pool.Count(zfsfake.After(zfsfake.Sync))
	for what, do := range map[string]func(){
		"view":           func() { s.view("look", name) },
		"update":         func() { _, err := s.sn.Update(s.ctx, snapshots.Info{Name: "web"}, "labels.a"); require.NoError(t, err) },
		"joining commit": func() { s.commit("default/9/"+chain("a"), "default/8/extract-1-x "+chain("a")) },
	} {
		before := syncs()
		do()
		assert.Equal(t, 1, syncs()-before, what)
	}
	assert.Zero(t, transactions())
	want := s.visible()
	s.crash()
	assert.Empty(t, model.Differences(want, s.visible()))
	s.requireInvariants()
}

// A removal is durable half a second later, and the pool has it when no operation writes.
func TestRemovalsReachTheLogAndThenThePool(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t, withLog, func(s *fixture) { s.pool = zfsfake.New(s, zfsfake.LosesWrites) })
		s.layer("base", "", "b;")
		s.view("look", "base")
		end := s.sn.Begin(s.ctx) // an operation writes
		s.flush()
		s.remove("look")
		time.Sleep(journal.Delay)
		synctest.Wait()
		assert.Equal(t, 2, s.recordsInPool(), "the pool is busy")
		assert.Greater(t, len(s.logBytes()), 32, "the log has the removal")
		time.Sleep(journal.MaxAge + 2*time.Second)
		synctest.Wait()
		assert.Equal(t, 1, s.recordsInPool(), "the removal is old")
		assert.Len(t, s.logBytes(), 32, "the log is truncated")
		end()
		s.requireInvariants()
	})
}

// What a commit changes in a transaction is not reverted by older entries of the log.
func TestCommitSupersedesTheLog(t *testing.T) {
	t.Parallel()
	for mode, option := range map[string]func(*fixture){"atomic": func(*fixture) {}, "in steps": inSteps} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			s := newFixture(t, option, withLog)
			s.prepare("web", "")
			_, err := s.sn.Update(s.ctx, snapshots.Info{Name: "web", Labels: map[string]string{"a": "b"}})
			require.NoError(t, err)
			s.commit("saved", "web")
			s.remove("saved")
			require.NoError(t, s.sn.journal.Settle(s.ctx, true))
			require.Greater(t, len(s.logBytes()), 32, "the log has the update")
			s.crash()
			assert.Empty(t, s.walk(), "the snapshot does not exist again")
			s.requireInvariants()
		})
	}
}

// Without a log that can be written, each change is a transaction, and the log does not revert
// it. When there is space again, the log is used again.
func TestChangesWorkWhileTheLogCannotBeWritten(t *testing.T) {
	t.Parallel()
	for what, at := range map[string]zfsfake.Point{
		"write":        zfsfake.Before(zfsfake.Write),
		"half a write": zfsfake.After(zfsfake.Write),
		"sync":         zfsfake.Before(zfsfake.Sync),
		"synced":       zfsfake.After(zfsfake.Sync),
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := newFixture(t, withLog)
			s.layer("base", "", "b;")
			s.prepare("web", "base")
			relabel := func(value string) {
				_, err := s.sn.Update(s.ctx, snapshots.Info{Name: "web", Labels: map[string]string{"a": value}})
				require.NoError(t, err)
			}
			relabel("1") // is in the log
			end := s.pool.FailAt(at, zfsfake.Return(unix.EIO))
			relabel("2")
			s.view("look", "base")
			require.Error(t, s.sn.LogError())
			want := s.visible()
			s.remove("look")
			end()
			if what == "write" {
				s.view("again", "base")
				require.NoError(t, s.sn.LogError())
				s.remove("again")
			}
			s.crash()
			got := s.visible()
			delete(got, "again")
			delete(want, "look")
			delete(got, "look")
			assert.Empty(t, model.Differences(want, got))
			s.requireInvariants()
			s.view("more", "base")
			require.NoError(t, s.sn.LogError())
			s.requireInvariants()
		})
	}
}

// A log that does not belong to the state of the pool keeps the snapshotter from starting, and
// nothing is destroyed. With the right one it starts.
func TestForeignLogIsRefused(t *testing.T) {
	t.Parallel()
	other := newFixture(t, withLog)
	other.prepare("x", "")
	for what, test := range map[string]struct {
		spoil func(s *fixture, older []byte)
		says  string
	}{
		"missing": {func(s *fixture, _ []byte) { require.NoError(s, os.Remove(s.logPath())) }, "is missing"},
		"damaged": {func(s *fixture, _ []byte) {
			b := s.logBytes()
			b[len(b)-1] ^= 1
			require.NoError(s, os.WriteFile(s.logPath(), b, 0o600))
		}, "damaged"},
		"of another base": {func(s *fixture, _ []byte) { require.NoError(s, os.WriteFile(s.logPath(), other.logBytes(), 0o600)) }, "another base"},
		"an older one":    {func(s *fixture, older []byte) { require.NoError(s, os.WriteFile(s.logPath(), older, 0o600)) }, "it ends with entry"},
		"empty":           {func(s *fixture, _ []byte) { require.NoError(s, os.WriteFile(s.logPath(), nil, 0o600)) }, "damaged"},
		"a directory": {func(s *fixture, _ []byte) {
			require.NoError(s, os.Remove(s.logPath()))
			require.NoError(s, os.Mkdir(s.logPath(), 0o700))
		}, "is a directory"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := newFixture(t, withLog)
			s.layer("base", "", "b;")
			older := s.logBytes()
			s.view("look", "base")
			s.prepare("web", "base")
			s.commit("app", "web") // raises the position in the pool
			s.view("other look", "base")
			want, right := s.visible(), s.logBytes()
			s.pool = s.pool.AfterCrash()
			test.spoil(s, older)
			before := s.pool.Now()
			err := s.tryStart()
			require.ErrorIs(t, err, errdefs.ErrFailedPrecondition)
			require.ErrorContains(t, err, test.says)
			require.ErrorContains(t, err, "zfstpl log discard")
			assert.Equal(t, before.FS, s.pool.Now().FS, "nothing is changed")

			require.NoError(t, os.RemoveAll(s.logPath()))
			require.NoError(t, os.WriteFile(s.logPath(), right, 0o600))
			s.start()
			assert.Empty(t, model.Differences(want, s.visible()))
			s.requireInvariants()
		})
	}
}

// Of two logs, one of which is what an interrupted truncation leaves, only the log counts.
func TestSecondLogIsIgnored(t *testing.T) {
	t.Parallel()
	other := newFixture(t, withLog)
	other.prepare("x", "")
	for what, make := range map[string]func(s *fixture, path string) error{
		"empty":              func(_ *fixture, path string) error { return os.WriteFile(path, nil, 0o600) },
		"of another base":    func(_ *fixture, path string) error { return os.WriteFile(path, other.logBytes(), 0o600) },
		"a copy":             func(s *fixture, path string) error { return os.WriteFile(path, s.logBytes(), 0o600) },
		"a link to the log":  func(s *fixture, path string) error { return os.Symlink(filepath.Base(s.logPath()), path) },
		"a name for the log": func(s *fixture, path string) error { return os.Link(s.logPath(), path) },
		"a directory":        func(_ *fixture, path string) error { return os.Mkdir(path, 0o700) },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := newFixture(t, withLog)
			s.layer("base", "", "b;")
			s.view("look", "base")
			want := s.visible()
			s.pool = s.pool.AfterCrash()
			require.NoError(t, make(s, s.logPath()+".new"))
			s.start()
			assert.Empty(t, model.Differences(want, s.visible()))
			require.NoError(t, s.sn.journal.Flush(s.ctx))
			assert.Len(t, s.logBytes(), 32, "the log is truncated")
			assert.NoFileExists(t, s.logPath()+".new")
			s.crash()
			assert.Empty(t, model.Differences(want, s.visible()))
			s.requireInvariants()
		})
	}
}

// The base of an older release gets a log at its first start, and an older release refuses it
// from then on.
func TestBaseOfAnOlderReleaseGetsALog(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.layer("base", "", "b;")
	require.NoError(t, s.sn.Close())
	s.pool.EditFS(s.base.String(), func(fs *zfsfake.FS) { fs.Props[layout.VersionProperty] = "1" })
	withLog(s)
	s.start()
	assert.Equal(t, "2", s.pool.Now().FS[s.base.String()].Props[layout.VersionProperty])
	assert.NotEmpty(t, s.pool.Now().FS[s.base.String()].Props[recordlog.PositionProperty])
	s.view("look", "base")
	s.crash()
	assert.Contains(t, s.names(), "look")
	s.requireInvariants()
}

// A log whose writes are not durable is not used. What it has already stays valid.
func TestLogThatIsNotDurableIsNotUsed(t *testing.T) {
	t.Parallel()
	var reason error
	s := newFixture(t, withLog, settings(func(c *Config) { c.CheckLog = func(context.Context) error { return reason } }))
	s.layer("base", "", "b;")
	s.view("look", "base")
	s.pool = s.pool.AfterCrash()
	reason = errors.New("sync=disabled")
	s.start()
	require.ErrorIs(t, s.sn.LogError(), reason)
	before := s.logBytes()
	s.view("other", "base")
	assert.Equal(t, before, s.logBytes())
	s.crash()
	assert.Contains(t, s.names(), "look")
	assert.Contains(t, s.names(), "other")
	reason = nil
	s.restart()
	require.NoError(t, s.sn.LogError())
	s.requireInvariants()

	// Nor is one created.
	reason = errors.New("sync=disabled")
	s = newFixture(t, withLog, settings(s.with))
	require.ErrorIs(t, s.sn.LogError(), reason)
	s.view("look", "")
	s.requireInvariants()
	_, err := os.Stat(s.logPath())
	require.ErrorIs(t, err, os.ErrNotExist)
}

// A cached template that another program destroyed is noticed before the log refers to it.
func TestLogDoesNotReferToAMissingTemplate(t *testing.T) {
	t.Parallel()
	s := newFixture(t, withLog)
	name, _ := s.pull("default", "", chain("a"), "a;")
	s.remove(name)
	s.cleanup()
	template := s.templates()[1]
	s.pool.Edit(func(state *zfsfake.State) { delete(state.FS, template) })
	s.pool.Keep(nil)
	_, unpacked := s.pull("default", "", chain("a"), "a;")
	assert.True(t, unpacked)
	s.requireInvariants()
}

// Many callers change records while the log is truncated again and again.
func TestManyCallersUseTheLog(t *testing.T) {
	t.Parallel()
	s := newFixture(t, withLog)
	s.layer("base", "", "b;")
	const callers, each = 32, 312 // ten thousand operations
	stop := make(chan struct{})
	var flusher, all sync.WaitGroup
	flusher.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				assert.NoError(t, s.sn.journal.FlushPaced(s.ctx, true))
			}
		}
	})
	for c := range callers {
		all.Go(func() {
			for i := range each / 3 {
				key := fmt.Sprintf("%d-%d", c, i)
				if _, err := s.sn.View(s.ctx, key, "base"); !assert.NoError(t, err) {
					return
				}
				if i%4 > 0 {
					assert.NoError(t, s.sn.Remove(s.ctx, key))
					continue
				}
				_, err := s.sn.Update(s.ctx, snapshots.Info{Name: key, Labels: map[string]string{"n": key}})
				assert.NoError(t, err)
			}
		})
	}
	all.Wait()
	close(stop)
	flusher.Wait()
	require.NoError(t, s.sn.journal.Settle(s.ctx, true))
	want := s.visible()
	assert.Len(t, want, 1+callers*(each/3/4))
	s.crash()
	assert.Empty(t, model.Differences(want, s.visible()))
	s.requireInvariants()
}

// A base that has no log and no space for one is served without it.
func TestBaseWithoutSpaceGetsNoLog(t *testing.T) {
	t.Parallel()
	for what, at := range map[string]zfsfake.Point{"for the file": zfsfake.Before(zfsfake.Write), "for the property": zfsfake.Before(zfsfake.Apply)} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := newFixture(t)
			s.layer("base", "", "b;")
			require.NoError(t, s.sn.Close())
			withLog(s)
			end := s.pool.FailAt(at, zfsfake.Refuse(zfs.ErrNoSpace), zfsfake.Once())
			s.start()
			end()
			require.Error(t, s.sn.LogError())
			s.view("look", "base")
			s.crash()
			require.NoError(t, s.sn.LogError())
			assert.Contains(t, s.names(), "look")
			s.requireInvariants()
		})
	}
}

// If it is not known whether the log has a change, and the pool refuses it, the change fails and
// is rolled back: it does not happen after a crash either.
func TestFailedChangeIsNotReplayed(t *testing.T) {
	t.Parallel()
	for what, do := range map[string]func(s *fixture) error{
		"view": func(s *fixture) error { return second(s.sn.View(s.ctx, "look", "base")) },
		"update": func(s *fixture) error {
			return second(s.sn.Update(s.ctx, snapshots.Info{Name: "web", Labels: map[string]string{"a": "new"}}))
		},
		"joining commit": func(s *fixture) error {
			return s.sn.Commit(s.ctx, "default/9/"+chain("a"), "default/8/extract-1-x "+chain("a"))
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := newFixture(t, withLog)
			s.layer("base", "", "b;")
			s.pull("default", "", chain("a"), "a;")
			s.prepare("web", "base", label("a", "old"))
			s.prepare("default/8/extract-1-x "+chain("a"), "", ref(chain("a")), label(ReuseLabel, "off"))
			want := s.visible()
			noSync := s.pool.FailAt(zfsfake.Before(zfsfake.Sync), zfsfake.Return(unix.EIO))
			refused := s.pool.FailAt(zfsfake.Before(zfsfake.Apply), zfsfake.Refuse(zfs.ErrPermission), zfsfake.Once())
			require.Error(t, do(s))
			refused()
			noSync()
			assert.Empty(t, model.Differences(want, s.visible()))
			s.prepare("other", "") // a transaction makes durable what the log has
			require.NoError(t, s.sn.journal.Barrier(s.ctx), "the rollback is written")
			want = s.visible()
			s.crash()
			assert.Empty(t, model.Differences(want, s.visible()))
			s.requireInvariants()
			require.NoError(t, do(s))
			s.requireInvariants()
		})
	}
}
