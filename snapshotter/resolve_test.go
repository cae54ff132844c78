package snapshotter

import (
	"testing"

	"github.com/zfstpl/zfstpl/snapshotter/zfs/zfsfake"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The command of a commit is killed after it has applied everything. The commit fails, and
// writes to the active snapshot after that survive a restart.
func TestWritesAfterKilledCommitAreKept(t *testing.T) {
	t.Parallel()
	for what, then := range map[string]func(s *fixture){
		"written": func(*fixture) {},
		"written and labelled": func(s *fixture) {
			require.NoError(s, second(s.sn.Update(s.ctx, snapshots.Info{Name: "web", Labels: map[string]string{"a": "b"}})))
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := newFixture(t)
			s.layer("base", "", "b;")
			s.prepare("web", "base")
			s.write("web", "before;")
			s.applyThenKill(func() error { return s.sn.Commit(s.ctx, "saved", "web") })
			assert.Equal(t, []string{"base", "web"}, s.names(), "as before")
			s.write("web", "after;")
			assert.Empty(t, s.stat("web").Labels, "the snapshot is available when the pool responds")
			then(s)
			s.cleanup()

			s.restart()
			s.cleanup()
			assert.Equal(t, "b;before;after;", s.visible()["web"].Content, "snapshots: %q", s.names())
			s.commit("saved again", "web")
			assert.Equal(t, "b;before;after;", s.visible()["saved again"].Content)
			s.requireInvariants()
		})
	}
}

// The command of a commit is killed after it has applied everything, and the pool does not
// say so. The commit fails. The active snapshot, once it is available, survives a crash.
func TestActiveSnapshotSurvivesCrashAfterKilledCommit(t *testing.T) {
	t.Parallel()
	const key = "default/9/extract-1-x"
	for what, joins := range map[string]bool{"new template": false, "existing template": true} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := newFixture(t)
			left := []string{key}
			s.prepare(key, "", ref(chain("a")))
			s.write(key, "y;")
			if joins {
				name, _ := s.pull("default", "", chain("a"), "x;")
				left = append(left, name)
			}
			s.applyThenKill(func() error { return s.sn.Commit(s.ctx, "default/8/"+chain("a"), key) })
			s.stat(key)

			s.crash()
			assert.ElementsMatch(t, left, s.names())
			assert.Equal(t, "y;", s.visible()[key].Content)
			s.cleanup()
			s.requireInvariants()
		})
	}
}

// The command of a commit is killed after it has applied everything. The pool shows that, and
// the commit succeeds.
func TestKilledCommitThatTookEffectSucceeds(t *testing.T) {
	t.Parallel()
	const key, name = "default/9/extract-1-x", "default/8/"
	for what, joins := range map[string]bool{"new template": false, "existing template": true} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := newFixture(t)
			s.prepare(key, "", ref(chain("a")))
			s.write(key, "x;")
			left := []string{name + chain("a")}
			if joins {
				other, _ := s.pull("default", "", chain("a"), "x;")
				left = append(left, other)
			}
			s.pool.FailAt(zfsfake.After(zfsfake.Apply), zfsfake.Kill())
			s.commit(name+chain("a"), key)
			s.crash()
			assert.ElementsMatch(t, left, s.names())
			assert.Equal(t, "x;", s.visible()[name+chain("a")].Content)
			s.requireInvariants()
		})
	}
}

// While the outcome of a commit is not known, its snapshot is unavailable, and others are not.
func TestSnapshotIsUnavailableWhileItsCommitIsUnknown(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.prepare("web", "")
	s.prepare("db", "")
	s.applyThenKill(func() error { return s.sn.Commit(s.ctx, "saved", "web") })
	restore := s.unlisted()
	for what, do := range map[string]func(key string) error{
		"stat":   func(key string) error { return second(s.sn.Stat(s.ctx, key)) },
		"mounts": func(key string) error { return second(s.sn.Mounts(s.ctx, key)) },
		"usage":  func(key string) error { return second(s.sn.Usage(s.ctx, key)) },
		"update": func(key string) error { return second(s.sn.Update(s.ctx, snapshots.Info{Name: key})) },
	} {
		require.ErrorIs(t, do("web"), errdefs.ErrUnavailable, what)
		require.NoError(t, do("db"), what)
	}
	require.ErrorIs(t, s.sn.Commit(s.ctx, "saved again", "web"), errdefs.ErrUnavailable)
	restore()
	s.commit("saved again", "web")
	assert.Equal(t, []string{"db", "saved again"}, s.names())
	s.requireInvariants()
}
