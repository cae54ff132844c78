package snapshotter

import (
	"testing"
	"testing/synctest"

	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// partialCommit has the commit of a layer killed that has got as far as to clone the runtime's
// snapshot, and answers the runtime's key and the name of the half.
func (s *fixture) partialCommit() (key, half string) {
	s.Helper()
	key = "default/8/extract-1-x"
	s.prepare(key, "", ref(chain("a")))
	s.write(key, "x;")
	s.pool.killAfter = 3
	err := s.sn.Commit(s.ctx, "default/9/"+chain("a"), key)
	s.pool.killAfter = -1
	require.ErrorIs(s, err, errKilled)
	return key, "tank/z/storage/" + chain("a")
}

// The half of a killed commit was destroyed, and its name is another's: what becomes of
// the snapshot that it was of does nothing to that.
func TestAnotherHasTheNameOfAHalf(t *testing.T) {
	t.Parallel()
	for what, then := range map[string]func(s *fixture, key string){
		"committed under another name": func(s *fixture, key string) { s.commit("mine", key) },
		"removed":                      func(s *fixture, key string) { s.remove(key) },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := newFixture(t, torn)
			key, half := s.partialCommit()
			s.pool.interrupt(func(call string) error {
				if call == "destroysnapshot" {
					return fakeError(call, "x", zfs.ErrBusy)
				}
				return nil
			})
			require.ErrorIs(t, s.sn.Commit(s.ctx, "default/9/"+chain("a"), key), errdefs.ErrFailedPrecondition)
			require.False(t, s.has(half))
			s.pool.interrupt(nil)
			name, _ := s.pull("default", "", chain("a"), "x;")
			require.Equal(t, half, s.templateOf(name))
			s.cleanup()
			then(s, key)
			s.cleanup()
			assert.True(t, s.has(half))
			assert.Zero(t, s.garbage())
			s.requireInvariants()
		})
	}
}

// A snapshot goes whose commit was killed, and with it what that left; nobody is told
// of a stranger's clone, and the layer's name is free.
func TestAHalfGoesWithItsSnapshot(t *testing.T) {
	t.Parallel()
	s := newFixture(t, torn)
	key, half := s.partialCommit()
	s.remove(key)
	s.cleanup()
	assert.Len(t, s.datasets(), 1)
	assert.NotContains(t, s.log.String(), "foreign clones")
	name, _ := s.pull("default", "", chain("a"), "x;")
	assert.Equal(t, half, s.templateOf(name))
	s.requireInvariants()
}

// A commit that was killed can be done again by the daemon that lives on.
func TestAKilledCommitAgain(t *testing.T) {
	t.Parallel()
	for kill := range 7 {
		s := newFixture(t, torn)
		s.prepare("web", "")
		s.write("web", "w;")
		s.pool.killAfter = kill
		err := s.sn.Commit(s.ctx, "saved", "web")
		s.pool.killAfter = -1
		require.ErrorIs(t, err, errKilled, "killed at %d", kill)
		assert.NoError(t, s.sn.Commit(s.ctx, "saved", "web"), "killed at %d", kill)
		if s.sn.index.records["web"] != nil {
			s.remove("web")
			s.cleanup()
			assert.Len(t, s.datasets(), 1, "removed and cleaned up, killed at %d", kill)
		}
	}
}

// What a killed commit left goes with its snapshot.
func TestAKilledCommitIsRemoved(t *testing.T) {
	t.Parallel()
	for kill := range 7 {
		synctest.Test(t, func(t *testing.T) {
			s := newFixture(t, torn)
			s.prepare("web", "")
			s.write("web", "w;")
			s.pool.killAfter = kill
			err := s.sn.Commit(s.ctx, "saved", "web")
			s.pool.killAfter = -1
			require.ErrorIs(t, err, errKilled, "killed at %d", kill)
			s.remove("web")
			s.cleanup()
			s.waitForRetries()
			s.cleanup()
			assert.Len(t, s.datasets(), 1, "killed at %d: %q\n%s", kill, s.datasets(), s.log)
		})
	}
}
