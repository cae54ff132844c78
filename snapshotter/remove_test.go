package snapshotter

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/model"
	"github.com/zfstpl/zfstpl/snapshotter/internal/journal"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs/zfsfake"
)

// Remove takes effect for clients at once, and in the pool after Delay.
func TestRemoveIsWrittenAfterJournalDelay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t)
		s.layer("base", "", "")
		s.prepare("web", "base")
		s.remove("web", "base")
		assert.Empty(t, s.walk())
		assert.Equal(t, 2, s.recordsInPool())
		time.Sleep(journal.Delay)
		synctest.Wait()
		assert.Zero(t, s.recordsInPool(), "without a cleanup")
	})
}

// Remove of a parent returns FailedPrecondition and changes nothing.
func TestRemoveOfParentIsRefused(t *testing.T) {
	t.Parallel()
	s := newFixture(t, keepCached(0))
	s.layer("base", "", "")
	s.layer("app", "base", "")
	s.view("look", "base")
	s.prepare("web", "app")
	for _, child := range []string{"look", "web", "app"} {
		require.ErrorIs(t, s.sn.Remove(s.ctx, "base"), errdefs.ErrFailedPrecondition)
		s.cleanup()
		s.remove(child)
	}
	s.remove("base", "base")
	s.requireInvariants()
	assert.Len(t, s.datasets(), 1)
}

// After a crash before a removal is in the pool, the snapshot exists again.
func TestUnwrittenRemoveIsUndoneByCrash(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.layer("base", "", "b;")
	s.prepare("web", "base")
	s.view("look", "base")
	before := s.visible()
	s.remove("web", "look", "base")
	s.crash()
	assert.Equal(t, before, s.visible())
	s.requireInvariants()
}

// A key is used again before its removal is in the pool. After a crash the new snapshot
// exists, and the dataset of the old one is garbage.
func TestReusedKeySurvivesCrashBeforeRemovalIsWritten(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.layer("base", "", "b;")
	s.prepare("web", "base")
	s.write("web", "old;")
	s.view("look", "base", label("age", "old"))
	s.layer("saved", "base", "old;")
	old := []string{s.dataset("web"), s.templateOf("saved")}
	s.remove("web", "look", "saved")
	s.prepare("web", "")
	s.write("web", "new;")
	s.view("look", "base", label("age", "new"))
	s.layer("saved", "base", "new;")
	before := s.visible()
	s.crash()
	assert.Equal(t, before, s.visible())
	assert.Equal(t, "new;", before["web"].Content)
	s.requireInvariants()
	for _, dataset := range old {
		assert.NotContains(t, s.datasets(), dataset)
	}
	s.remove("web", "look", "saved")
	s.crash()
	s.requireInvariants()
}

// A parent and its child are removed, and the parent's name is used for an active snapshot.
// After a crash the child exists again, but not as a child of the active snapshot.
func TestChildOfLostParentIsShownWithoutParent(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.layer("base", "", "b;")
	s.prepare("web", "base")
	s.write("web", "w;")
	s.remove("web", "base")
	s.prepare("base", "")
	s.crash()
	assert.Equal(t, map[string]model.Snapshot{
		"base": {Kind: snapshots.KindActive},
		"web":  {Kind: snapshots.KindActive, Content: "b;w;"},
	}, s.visible(), "the child has no parent, so that containerd can remove it")
	assert.Contains(t, s.log.String(), "parent of snapshot is missing")
	s.cleanup()
	assert.Equal(t, "b;w;", s.visible()["web"].Content)
	s.commit("saved", "web")
	assert.Equal(t, "b;w;", s.visible()["saved"].Content)
	s.remove("saved", "base")
	s.requireInvariants()
}

// The daemon is killed while a cleanup destroys a template, which has lost its @extracted. If
// the removal of its record were not written, recovery would take it for a damaged template,
// and keep it and the templates below it for ever.
func TestTemplateWithoutSnapshotIsDestroyedAfterCrash(t *testing.T) {
	t.Parallel()
	for what, dies := range map[string]func(s *fixture, template string){
		"killed in the program": func(s *fixture, template string) {
			s.pool.FailAt(zfsfake.Before(zfsfake.Destroy), zfsfake.Do(func() error {
				s.pool.EditFS(template, func(fs *zfsfake.FS) { delete(fs.Snaps, layout.Extracted) })
				return zfsfake.ErrKilled
			}), zfsfake.Once())
			// Nothing is written before the machine crashes.
			s.pool.FailAt(zfsfake.Before(zfsfake.Transaction), zfsfake.Crash(), zfsfake.From(zfsfake.Before(zfsfake.Destroy)), zfsfake.Optional())
		},
		"crash, mounted, in a full pool": func(s *fixture, template string) {
			s.mount(template)
			s.pool.Edit(func(state *zfsfake.State) { state.Full = true })
			s.pool.FailAt(zfsfake.Before(zfsfake.Transaction), zfsfake.Crash(), zfsfake.From(zfsfake.After(zfsfake.Destroy)))
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newFixture(t) // keeps layers for ever; opaque templates expire at once
				s.layer("base", "", "b;")
				s.layer("built", "base", "x;")
				s.cleanup()
				template := s.templateOf("built")
				s.remove("built", "base")
				dies(s, template)
				_ = s.sn.Cleanup(s.ctx)
				s.crash()
				for range 3 { // containerd's next collections, and starts
					s.remove("built", "base")
					s.cleanup()
					s.waitForRetries()
					s.restart()
				}
				assert.Empty(t, s.names())
				assert.Equal(t, []string{s.base.Empty().Dataset()}, s.datasets(), "all datasets are destroyed: %s", s.log)
			})
		})
	}
}
