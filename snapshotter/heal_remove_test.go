package snapshotter

import (
	"testing"
	"testing/synctest"

	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// While the journal has the removal of a record, Stat and Usage do not restore it: containerd
// can look a name up, collect the snapshot and then call Stat. Prepare restores it, because
// containerd's database has the name.
func TestReadDoesNotRestorePendingRemoval(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	names := s.image("default", "a;")
	release := s.sn.journal.Pause()
	s.remove(names...)
	for _, how := range []string{"stat", "usage"} {
		require.ErrorIs(t, healOps[how](s, names[0], ""), errdefs.ErrNotFound, how)
	}
	assert.Zero(t, s.restorations())
	require.NoError(t, healOps["prepare"](s, names[0], "default/80/web"))
	assert.Equal(t, 1, s.restorations())
	release()
	s.requireInvariants()
	s.crash()
	assert.Equal(t, names[0], s.stat("default/80/web").Parent, "the removal is that of the old record")
	s.requireInvariants()
}

// A Remove during a restore removes the restored record. A hidden record is not restored.
func TestRemoveDuringRestoreWins(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t)
		names := s.image("default", "a;")
		template := s.templateOf(names[0])
		s.loseRecords(names...)
		unlock, err := s.sn.locks.datasets.Lock(s.ctx, template)
		require.NoError(t, err)
		done := make(chan error, 1)
		go func() { done <- second(s.sn.Stat(s.ctx, names[0])) }()
		synctest.Wait() // Stat holds the key and waits for the dataset
		s.remove(names[0])
		unlock()
		<-done
		synctest.Wait()
		assert.Empty(t, s.names())
		s.requireInvariants()

		s.stat(names[0])
		unlock, err = s.sn.locks.keys.Lock(s.ctx, names[0])
		require.NoError(t, err)
		s.remove(names[0])
		for range 3 {
			go func() { done <- second(s.sn.Stat(s.ctx, names[0])) }()
		}
		synctest.Wait() // they wait for the key
		release := s.sn.journal.Pause()
		unlock()
		for range 3 {
			require.ErrorIs(t, <-done, errdefs.ErrNotFound)
		}
		assert.Equal(t, 2, s.restorations())
		s.prepare("default/80/prepare", names[0])
		assert.Equal(t, 3, s.restorations())
		release()
		s.requireInvariants()
		s.remove("default/80/prepare")
		s.remove(names[0])
		s.requireInvariants()
		assert.True(t, s.sn.index.Template(template).Cached())
	})
}

// Remove of a lost record returns nil, writes nothing and restores nothing.
func TestRemoveOfLostRecordWritesNothing(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	names := s.image("default", "a;")
	s.loseRecords(names...)
	txg := s.txg()
	s.remove(names...)
	s.flush()
	assert.Equal(t, txg, s.txg())
	assert.Zero(t, s.restorations())
}
