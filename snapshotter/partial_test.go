package snapshotter

import (
	"slices"
	"testing"
	"testing/synctest"

	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
	"github.com/zfstpl/zfstpl/snapshotter/zfs/zfsfake"
)

// killCommit kills a commit at a cut, and returns whether it succeeds. It does if it does not
// reach the cut, or if its record was written and the pool says so.
func (s *fixture) killCommit(cut *zfsfake.Cut, responds bool, name, key string) (committed bool) {
	s.Helper()
	if !responds {
		defer s.unlisted()()
	}
	end := s.pool.FailAt(cut.Point, zfsfake.Kill())
	err := s.sn.Commit(s.ctx, name, key)
	end()
	// The removal of the active record follows the record.
	if !cut.Reached() || responds && cut.Is(zfsfake.Inherit) {
		require.NoError(s, err, "killed %s", cut)
		return true
	}
	require.ErrorIs(s, err, zfsfake.ErrKilled, "killed %s", cut)
	return false
}

// eachCommitCut calls kill for each cut of a commit, on a pool that responds to listings after
// it and on one that does not. The pool must be torn.
func eachCommitCut(t *testing.T, kill func(cut *zfsfake.Cut, responds bool)) {
	t.Helper()
	for _, responds := range []bool{true, false} {
		left := []zfsfake.Kind{zfsfake.Snapshot, zfsfake.Clone, zfsfake.Promote, zfsfake.Set, zfsfake.Inherit}
		for cut := range zfsfake.Each(t, zfsfake.Before(zfsfake.Transaction)) {
			kill(cut, responds)
			left = slices.DeleteFunc(left, cut.Is)
		}
		require.Empty(t, left, "a cut before each of these")
	}
}

// partialCommit kills the commit of a layer after its clone. It returns the key of the
// runtime and the name of the partial dataset.
func (s *fixture) partialCommit() (key, partial string) {
	s.Helper()
	key = "default/8/extract-1-x"
	s.prepare(key, "", ref(chain("a")))
	s.write(key, "x;")
	defer s.unlisted()()
	s.pool.FailAt(zfsfake.After(zfsfake.Clone), zfsfake.Kill())
	err := s.sn.Commit(s.ctx, "default/9/"+chain("a"), key)
	require.ErrorIs(s, err, zfsfake.ErrKilled)
	return key, "tank/z/storage/" + chain("a")
}

// The partial dataset of a killed commit was destroyed, and a template has its name now. A
// commit or removal of the runtime does not affect that template.
func TestTemplateWithNameOfAPartialIsKept(t *testing.T) {
	t.Parallel()
	for what, then := range map[string]func(s *fixture, key string){
		"committed under another name": func(s *fixture, key string) { s.commit("mine", key) },
		"removed":                      func(s *fixture, key string) { s.remove(key) },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := newFixture(t, torn)
			key, partial := s.partialCommit()
			end := s.pool.FailAt(zfsfake.Before(zfsfake.DestroySnapshot), zfsfake.Refuse(zfs.ErrBusy))
			require.ErrorIs(t, s.sn.Commit(s.ctx, "default/9/"+chain("a"), key), errdefs.ErrUnavailable)
			require.False(t, s.has(partial))
			s.stat(key)
			assert.NoError(t, second(s.sn.Mounts(s.ctx, key)), "only a commit needs what cannot be destroyed")
			end()
			name, _ := s.pull("default", "", chain("a"), "x;")
			require.Equal(t, partial, s.templateOf(name))
			s.cleanup()
			then(s, key)
			s.cleanup()
			assert.True(t, s.has(partial))
			assert.Zero(t, s.garbage())
			s.requireInvariants()
		})
	}
}

// The residue of a killed commit is destroyed with the runtime. No foreign clone is logged, and the
// name of the layer is free.
func TestPartialIsDestroyedWithItsRuntime(t *testing.T) {
	t.Parallel()
	s := newFixture(t, torn)
	key, partial := s.partialCommit()
	s.remove(key)
	s.cleanup()
	assert.Len(t, s.datasets(), 1)
	assert.NotContains(t, s.log.String(), "foreign clones")
	name, _ := s.pull("default", "", chain("a"), "x;")
	assert.Equal(t, partial, s.templateOf(name))
	s.requireInvariants()
}

func TestKilledCommitCanBeRepeated(t *testing.T) {
	t.Parallel()
	eachCommitCut(t, func(cut *zfsfake.Cut, responds bool) {
		s := newFixture(t, torn)
		s.prepare("web", "")
		s.write("web", "w;")
		if !s.killCommit(cut, responds, "saved", "web") {
			assert.NoError(t, s.sn.Commit(s.ctx, "saved", "web"), "killed %s", cut)
		}
		assert.Equal(t, "w;", s.visible()["saved"].Content)
		if s.sn.index.Taken("web") {
			s.remove("web")
			s.cleanup()
			assert.Len(t, s.datasets(), 1, "removed and cleaned up, killed %s", cut)
		}
	})
}

func TestResidueOfKilledCommitIsRemoved(t *testing.T) {
	t.Parallel()
	eachCommitCut(t, func(cut *zfsfake.Cut, responds bool) {
		synctest.Test(t, func(t *testing.T) {
			s := newFixture(t, torn)
			s.prepare("web", "")
			s.write("web", "w;")
			s.killCommit(cut, responds, "saved", "web")
			s.remove("web", "saved")
			s.cleanup()
			s.waitForRetries()
			s.cleanup()
			assert.Len(t, s.datasets(), 1, "killed %s: %q\n%s", cut, s.datasets(), s.log)
		})
	})
}
