package snapshotter

import (
	"testing"
	"testing/synctest"

	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
	"github.com/zfstpl/zfstpl/snapshotter/zfs/zfsfake"
)

// killCommit kills a commit after some calls to the pool, and returns whether it succeeds. It
// does if its record was written and the pool says so.
func (s *fixture) killCommit(kill int, responds bool, name, key string) (committed bool) {
	s.Helper()
	if !responds {
		defer s.unlisted()()
	}
	s.pool.KillAfter = kill
	err := s.sn.Commit(s.ctx, name, key)
	s.pool.KillAfter = -1
	if responds && kill == tornCommitSteps-1 {
		require.NoError(s, err, "its record was written")
		return true
	}
	require.ErrorIs(s, err, zfsfake.ErrKilled, "killed at %d", kill)
	return false
}

// tornCommitSteps is the number of calls to the pool in a commit on a pool that is torn:
// flush, snapshot, clone, promote, record, removal of the active record.
const tornCommitSteps = 6

// partialCommit kills the commit of a layer after its clone. It returns the key of the
// runtime and the name of the partial dataset.
func (s *fixture) partialCommit() (key, partial string) {
	s.Helper()
	key = "default/8/extract-1-x"
	s.prepare(key, "", ref(chain("a")))
	s.write(key, "x;")
	defer s.unlisted()()
	s.pool.KillAfter = 3 // flush, snapshot, clone
	err := s.sn.Commit(s.ctx, "default/9/"+chain("a"), key)
	s.pool.KillAfter = -1
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
			s.pool.Interrupt(func(call string) error {
				if call == "destroysnapshot" {
					return zfsfake.Error(call, "x", zfs.ErrBusy)
				}
				return nil
			})
			require.ErrorIs(t, s.sn.Commit(s.ctx, "default/9/"+chain("a"), key), errdefs.ErrUnavailable)
			require.False(t, s.has(partial))
			s.stat(key)
			assert.NoError(t, second(s.sn.Mounts(s.ctx, key)), "only a commit needs what cannot be destroyed")
			s.pool.Interrupt(nil)
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
	for n := range 2 * tornCommitSteps {
		kill, responds := n/2, n%2 == 0
		s := newFixture(t, torn)
		s.prepare("web", "")
		s.write("web", "w;")
		if !s.killCommit(kill, responds, "saved", "web") {
			assert.NoError(t, s.sn.Commit(s.ctx, "saved", "web"), "killed at %d", kill)
		}
		assert.Equal(t, "w;", s.visible()["saved"].Content)
		if s.sn.index.Taken("web") {
			s.remove("web")
			s.cleanup()
			assert.Len(t, s.datasets(), 1, "removed and cleaned up, killed at %d", kill)
		}
	}
}

func TestResidueOfKilledCommitIsRemoved(t *testing.T) {
	t.Parallel()
	for n := range 2 * tornCommitSteps {
		kill, responds := n/2, n%2 == 0
		synctest.Test(t, func(t *testing.T) {
			s := newFixture(t, torn)
			s.prepare("web", "")
			s.write("web", "w;")
			s.killCommit(kill, responds, "saved", "web")
			s.remove("web", "saved")
			s.cleanup()
			s.waitForRetries()
			s.cleanup()
			assert.Len(t, s.datasets(), 1, "killed at %d: %q\n%s", kill, s.datasets(), s.log)
		})
	}
}
