package snapshotter

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/internal/reaper"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
	"github.com/zfstpl/zfstpl/snapshotter/zfs/zfsfake"
)

func destroyForeign(c *Config) { c.Foreign = DestroyForeign }

// foreignStory creates a container on two layers, all with foreign snapshots, and removes
// the three.
func foreignStory(t *testing.T, options ...func(*fixture)) *fixture {
	s := newFixture(t, append(options, keepCached(0))...)
	s.layer("base", "", "b;")
	s.layer("app", "base", "a;")
	s.cleanup()
	s.prepare("web", "app")
	for _, dataset := range []string{s.dataset("web"), s.templateOf("app"), s.templateOf("base")} {
		for _, name := range []string{"@hourly", "@daily"} {
			require.NoError(t, s.pool.Apply(s.ctx, zfs.Snapshot(dataset+name)))
		}
	}
	s.remove("web", "app", "base")
	return s
}

// Foreign snapshots are kept with their datasets, and named in the log.
func TestForeignSnapshotsAreKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := foreignStory(t)
		all := s.datasets()
		require.Len(t, all, 4)
		s.cleanup()
		s.waitForRetries()
		assert.Equal(t, all, s.datasets())
		text := s.log.String()
		assert.Equal(t, 3, strings.Count(text, "level=warning"), "one warning per dataset: %s", text)
		for _, dataset := range all {
			if dataset != s.base.Empty().Dataset() {
				assert.Contains(t, text, dataset+"@daily, "+dataset+"@hourly", "the names of its snapshots")
			}
		}

		entries, err := s.inspect()
		require.NoError(t, err)
		shown := 0
		for _, e := range entries {
			shown += len(e.Foreign)
		}
		assert.Equal(t, 6, shown)
		s.requireRecoverable()
	})
}

func TestForeignSnapshotsAreDestroyed(t *testing.T) {
	t.Parallel()
	s := foreignStory(t, settings(destroyForeign))
	s.layer("used", "", "u;")
	used := s.templateOf("used")
	s.cleanup()
	require.NoError(t, s.pool.Apply(s.ctx, zfs.Snapshot(used+"@daily")))
	s.cleanup()
	assert.Equal(t, []string{s.base.Empty().Dataset(), used}, s.datasets())
	s.pool.Edit(func(state *zfsfake.State) {
		assert.Contains(t, state.FS[used].Snaps, "daily", "datasets in use are not touched")
	})
	s.requireInvariants()
}

// A foreign snapshot that cannot be destroyed is named in the log and retried.
func TestForeignSnapshotWithAForeignCloneIsRetried(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t, settings(destroyForeign), keepCached(0))
		s.prepare("web", "")
		web := s.dataset("web")
		require.NoError(t, s.pool.Apply(s.ctx, zfs.Snapshot(web+"@daily"), zfs.Clone(web+"@daily", "tank/mine")))
		s.remove("web")
		s.cleanup()
		s.waitForRetries()
		assert.Contains(t, s.datasets(), web)
		assert.Equal(t, 1, strings.Count(s.log.String(), "level=warning"), s.log)
		assert.Contains(t, s.log.String(), "zfs destroy "+web+"@daily: has clones")
		s.pool.Edit(func(state *zfsfake.State) { delete(state.FS, "tank/mine") })
		s.waitForRetries()
		assert.NotContains(t, s.datasets(), web)
	})
}

// If the pool fails after the snapshots were destroyed, the index stays consistent.
func TestFailureAfterDestroyingForeignSnapshotsIsRecoverable(t *testing.T) {
	t.Parallel()
	s := foreignStory(t, settings(destroyForeign))
	end := s.pool.FailAt(zfsfake.Before(zfsfake.Call), zfsfake.Refuse(zfs.ErrSuspended), zfsfake.From(zfsfake.After(zfsfake.DestroyForeign)))
	assert.ErrorIs(t, s.sn.Cleanup(s.ctx), zfs.ErrSuspended)
	end()
	s.requireRecoverable()
	s.cleanup()
	assert.Len(t, s.datasets(), 1)
}

func TestForeignPolicyIsChecked(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.with = func(c *Config) { c.Foreign = "delete" }
	assert.ErrorContains(t, s.tryStart(), `"delete" is not one of keep, destroy`)
}

// In a full pool a mounted template loses its snapshot, in one batch with a dataset whose
// foreign snapshots are destroyed. The batch is tried again, and the template, then only
// busy, is still garbage.
func TestTemplateWithoutItsSnapshotStaysGarbageInASecondAttempt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t, settings(destroyForeign), keepCached(0))
		name, _ := s.pull("default", "", chain("a"), "x;")
		s.cleanup()
		template := s.templateOf(name)
		s.prepare("web", "")
		web := s.dataset("web")
		require.NoError(t, s.pool.Apply(s.ctx, zfs.Snapshot(web+"@daily")))
		s.remove(name, "web")
		s.mount(template)
		s.pool.Edit(func(state *zfsfake.State) { state.Full = true })
		time.Sleep(2 * reaper.QuietPeriod) // makes both one batch
		s.cleanup()
		s.pool.Edit(func(state *zfsfake.State) { state.Full = false })
		require.True(t, s.has(template), "it is mounted")
		require.False(t, s.has(web))

		name, unpacked := s.pull("default", "", chain("a"), "x;")
		assert.True(t, unpacked)
		s.prepare("db", name)
	})
}
