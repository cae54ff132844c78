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

func destroyForeign(c *Config) { c.Foreign = DestroyForeign }

// foreignStory has a container on two layers, of each of which somebody took
// snapshots; and nobody needs them any more.
func foreignStory(t *testing.T, options ...func(*story)) *story {
	s := begin(t, append(options, keepCached(0))...)
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

// Somebody else's snapshots are named, and stay with their dataset.
func TestForeignSnapshotsAreKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := foreignStory(t)
		all := s.datasets()
		require.Len(t, all, 4)
		s.cleanup()
		s.later()
		assert.Equal(t, all, s.datasets())
		text := s.log.String()
		assert.Equal(t, 3, strings.Count(text, "level=warning"), "each is said once: %s", text)
		for _, dataset := range all {
			if dataset != s.base.Empty().Dataset() {
				assert.Contains(t, text, dataset+"@daily, "+dataset+"@hourly", "by their names")
			}
		}

		entries, err := Inspect(s.ctx, s.pool, s.base)
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
	s.pool.edit(func(state *fakeState) {
		assert.Contains(t, state.fs[used].snaps, "daily", "what is in use is nobody's to touch")
	})
	s.requireInvariants()
}

// Foreign snapshots that cannot go either: it is said which, and tried again.
func TestForeignSnapshotsThatStay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := begin(t, settings(destroyForeign), keepCached(0))
		s.prepare("web", "")
		web := s.dataset("web")
		require.NoError(t, s.pool.Apply(s.ctx, zfs.Snapshot(web+"@daily"), zfs.Clone(web+"@daily", "tank/mine")))
		s.remove("web")
		s.cleanup()
		s.later()
		assert.Contains(t, s.datasets(), web)
		assert.Equal(t, 1, strings.Count(s.log.String(), "level=warning"), s.log)
		assert.Contains(t, s.log.String(), "zfs destroy "+web+"@daily: has clones")
		s.pool.edit(func(state *fakeState) { delete(state.fs, "tank/mine") })
		s.later()
		assert.NotContains(t, s.datasets(), web)
	})
}

// The pool fails between the two: everything is as it was.
func TestForeignSnapshotsWhenThePoolFails(t *testing.T) {
	t.Parallel()
	s := foreignStory(t, settings(destroyForeign))
	destroys := 0
	s.pool.before = func(call string) error {
		if call == "destroy" {
			destroys++
		}
		if destroys == 2 {
			return fakeError("destroy", "x", zfs.ErrSuspended)
		}
		return nil
	}
	assert.ErrorIs(t, s.sn.Cleanup(s.ctx), zfs.ErrSuspended)
	s.pool.before = nil
	s.requireRecoverable()
	s.cleanup()
	assert.Len(t, s.datasets(), 1)
}

func TestForeignPolicyIsChecked(t *testing.T) {
	t.Parallel()
	s := begin(t)
	s.with = func(c *Config) { c.Foreign = "delete" }
	assert.ErrorContains(t, s.tryStart(), `"delete" is none of keep, destroy`)
}

// A mounted template loses its snapshot in a full pool, in one batch with a dataset
// whose foreign snapshots go. With that it is tried again, and then is only busy.
func TestATemplateWithoutItsSnapshotBesideAForeignOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := begin(t, settings(destroyForeign), keepCached(0))
		name, _ := s.pull("default", "", chain("a"), "x;")
		s.cleanup()
		template := s.templateOf(name)
		s.prepare("web", "")
		web := s.dataset("web")
		require.NoError(t, s.pool.Apply(s.ctx, zfs.Snapshot(web+"@daily")))
		s.remove(name, "web")
		s.mount(template)
		s.pool.edit(func(state *fakeState) { state.full = true })
		time.Sleep(2 * quietPeriod) // nobody is at work: both go in one batch
		s.cleanup()
		s.pool.edit(func(state *fakeState) { state.full = false })
		require.True(t, s.has(template), "it is mounted")
		require.False(t, s.has(web))

		name, unpacked := s.pull("default", "", chain("a"), "x;")
		assert.True(t, unpacked)
		s.prepare("db", name)
	})
}
