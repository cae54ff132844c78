package snapshotter

import (
	"context"
	"maps"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
	"github.com/zfstpl/zfstpl/snapshotter/zfs/zfsfake"
)

// If the record cannot be written, methods that only read return NotFound with the reason, so
// that containerd's walks continue. Methods that write return the pool's error.
func TestFailedRestoreIsNotFoundForReads(t *testing.T) {
	t.Parallel()
	refusal := &zfs.Error{Op: "set", Dataset: "tank/z", Kind: zfs.ErrSuspended}
	s := newFixture(t)
	names := s.image("default", "a;")
	s.loseRecords(names...)
	end := s.pool.FailAt(zfsfake.Before(zfsfake.Apply), zfsfake.Return(refusal))
	for how, heal := range healOps {
		err := heal(s, names[0], "default/80/web")
		if how == "stat" || how == "usage" {
			require.ErrorIs(t, err, errdefs.ErrNotFound, how)
			require.NotErrorIs(t, err, errdefs.ErrUnavailable, how)
		} else {
			require.ErrorIs(t, err, errdefs.ErrUnavailable, how)
		}
		assert.ErrorContains(t, err, "suspended", how)
	}
	end()
	s.stat(names[0])
	assert.Equal(t, 1, s.restorations())
	s.requireInvariants()
}

// Stat evicts nothing to get space for a restored record. Prepare does.
func TestOnlyWritesReclaimSpaceForRestoredRecord(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	names := s.image("default", "a;")
	cached, _ := s.pull("default", "", chain("b"), hundred)
	s.remove(cached)
	s.loseRecords(names...)
	full := zfsfake.Return(zfsfake.Error("set", s.base.Storage(), zfs.ErrNoSpace))
	end := s.pool.FailAt(zfsfake.Before(zfsfake.Apply), full, zfsfake.Until(zfsfake.Before(zfsfake.Destroy)))
	require.ErrorIs(t, second(s.sn.Stat(s.ctx, names[0])), errdefs.ErrNotFound)
	assert.Len(t, s.templates(), 3)
	s.prepare("default/80/web", names[0])
	assert.Len(t, s.templates(), 2, "the cached template is evicted")
	end()
	s.requireInvariants()
}

// A cancelled restore returns the error of the context and changes nothing.
func TestCancelledRestoreChangesNothing(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	names := s.image("default", "a;")
	s.loseRecords(names...)
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	_, err := s.sn.Stat(ctx, names[0])
	require.ErrorIs(t, err, context.Canceled)
	_, err = s.sn.Prepare(ctx, "default/80/web", names[0])
	require.ErrorIs(t, err, context.Canceled)
	assert.Zero(t, s.restorations())
	s.stat(names[0])
	require.NoError(t, s.sn.Close())
	_, err = s.sn.Stat(s.ctx, names[0])
	require.ErrorIs(t, err, errdefs.ErrUnavailable)
}

// If another program destroyed the cached template, the record is not restored, and the
// template is removed from the index.
func TestRecordOfMissingTemplateIsNotRestored(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	names := s.image("default", "a;")
	dataset := s.templateOf(names[0])
	s.loseRecords(names...)
	s.pool.Edit(func(state *zfsfake.State) {
		maps.DeleteFunc(state.FS, func(name string, _ zfsfake.FS) bool { return name == dataset })
	})
	for range 2 {
		_, err := s.sn.View(s.ctx, "default/80/look", names[0])
		require.ErrorIs(t, err, errdefs.ErrNotFound)
		assert.ErrorContains(t, err, dataset)
		assert.ErrorContains(t, err, "docker rmi")
	}
	_, unpacked := s.pull("default", "", digest.FromString("a;").String(), "a;")
	assert.True(t, unpacked)
	s.requireInvariants()
}
