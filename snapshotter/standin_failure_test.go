package snapshotter

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
	"github.com/zfstpl/zfstpl/snapshotter/zfs/zfsfake"
)

// If another program destroyed the cached template, the layer is unpacked again.
func TestStandInOfMissingTemplateIsUnpacked(t *testing.T) {
	t.Parallel()
	s := newFixture(t, fetchMode)
	s.remove(s.unpack("default", "", lowerChain, lower, lowerBlob))
	s.flush()
	s.pool.Edit(func(state *zfsfake.State) { delete(state.FS, s.base.Storage()+"/"+lowerChain) })
	s.unpack("default", "", lowerChain, lower, lowerBlob)
	assert.Contains(t, s.log.String(), "cached template is missing; unpacking the layer again")
	assert.Empty(t, s.sn.index.DumpTransient())
	s.requireInvariants()
}

// A Prepare that fails to create a stand-in leaves no pin on the layer.
func TestFailedStandInReleasesLayer(t *testing.T) {
	t.Parallel()
	for what, why := range map[string]error{"full": zfs.ErrNoSpace, "suspended": zfs.ErrSuspended, "killed": zfsfake.ErrKilled} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := newFixture(t, fetchMode, keepCached(0))
			s.remove(s.unpack("default", "", lowerChain, lower, lowerBlob))
			s.flush()
			var limits []zfsfake.Limit
			if !errors.Is(why, zfs.ErrNoSpace) {
				limits = append(limits, zfsfake.Once())
			}
			end := s.pool.FailAt(zfsfake.Before(zfsfake.Apply), zfsfake.Return(why), limits...)
			_, err := s.sn.Prepare(s.ctx, "default/98/extract-1-x "+lowerChain, "", ref(lowerChain))
			require.Error(t, err)
			end()
			assert.Empty(t, s.walk())
			s.requireInvariants()
			assert.Equal(t, []string{s.base.Empty().Dataset()}, s.datasets(), "the layer is evicted")
		})
	}
}

// If the commit of a stand-in is killed or runs out of space, it can be retried.
func TestFailedStandInCommitCanBeRetried(t *testing.T) {
	t.Parallel()
	for what, why := range map[string]error{"full": zfs.ErrNoSpace, "killed": zfsfake.ErrKilled} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := newFixture(t, fetchMode, keepCached(0))
			s.remove(s.unpack("default", "", lowerChain, lower, lowerBlob))
			key := s.standIn("default", "", lowerChain)
			s.flush()
			// The commit and its retry after a reclaim.
			end := s.pool.FailAt(zfsfake.Before(zfsfake.Apply), zfsfake.Return(why), zfsfake.Times(2))
			require.Error(t, s.sn.Commit(s.ctx, "default/99/"+lowerChain, key))
			end()
			s.cleanup()
			s.restart()
			s.commit("default/99/"+lowerChain, key)
			s.requireInvariants()
			assert.Len(t, s.datasets(), 2)
		})
	}
}

// A Prepare whose context has ended creates nothing.
func TestCancelledStandInLeavesNothing(t *testing.T) {
	t.Parallel()
	s := newFixture(t, fetchMode)
	s.unpack("default", "", lowerChain, lower, lowerBlob)
	ctx, cancel := context.WithTimeout(s.ctx, time.Nanosecond)
	defer cancel()
	<-ctx.Done()
	_, err := s.sn.Prepare(ctx, "zoo/1/extract-1-x "+lowerChain, "", ref(lowerChain))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	s.requireInvariants()
	assert.Len(t, s.datasets(), 2)
}
