package snapshotter

import (
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/inspect"
	"github.com/zfstpl/zfstpl/snapshotter/inspect/invariants"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/space"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
	"github.com/zfstpl/zfstpl/snapshotter/zfs/zfsfake"
)

// A layer is not evicted while there is a stand-in of it.
func TestStandInKeepsItsLayer(t *testing.T) {
	t.Parallel()
	for what, evict := range map[string]func(*fixture){
		"after it expired": (*fixture).cleanup,
		"in a full pool": func(s *fixture) {
			s.pool.Edit(func(state *zfsfake.State) { state.Size = state.Below("tank") })
			_, err := s.sn.Prepare(s.ctx, "web", "")
			require.ErrorIs(s, err, errdefs.ErrResourceExhausted)
			s.pool.Edit(func(state *zfsfake.State) { state.Size = 0 })
		},
		"after a restart": func(s *fixture) { s.restart(); s.cleanup() },
		"after a crash":   func(s *fixture) { s.crash(); s.cleanup() },
	} {
		for _, inUse := range []bool{false, true} {
			t.Run(what, func(t *testing.T) {
				t.Parallel()
				s := newFixture(t, fetchMode, keepCached(0))
				a := s.unpack("default", "", lowerChain, lower, lowerBlob)
				if !inUse {
					s.remove(a)
					s.flush()
				}
				key := s.standIn("zoo", "", lowerChain)
				entries, err := s.inspect()
				require.NoError(t, err)
				for _, e := range entries {
					if e.State == inspect.Garbage {
						continue // the runtime that was committed
					}
					assert.Equal(t, inspect.Used, e.State, e.Dataset)
					assert.Equal(t, e.Dataset == s.dataset(key), e.StandInFor == lowerChain)
				}
				evict(s)
				s.cleanup()
				plan := space.NewPlan(s.sn.index.Nodes(), nil, space.Policy{MaxBytes: 1, Retry: true}, time.Now())
				assert.Empty(t, plan.Evict)
				assert.Zero(t, plan.Next, "no cleanup is due")
				_, _, ok := s.sn.StandIn(s.dataset(key))
				require.True(t, ok)
				name := s.backend("zoo", lowerChain)
				s.commit(name, key, ref(lowerChain))
				assert.Equal(t, lower.String()+";", s.visible()[name].Content)
				s.requireInvariants()
				if s.remove(name); inUse {
					s.remove(a)
				}
				s.requireInvariants()
				assert.Equal(t, []string{s.base.Empty().Dataset()}, s.datasets(), "all datasets are destroyed")
			})
		}
	}
}

// The commit of a stand-in replaces the record that containerd's old database made under the
// same name.
func TestStandInCommitReplacesRecordOfOldDatabase(t *testing.T) {
	t.Parallel()
	s := newFixture(t, fetchMode)
	a := s.unpack("default", "", lowerChain, lower, lowerBlob)
	template := s.templateOf(a)
	key := s.standIn("default", "", lowerChain)
	s.commit(a, key)
	assert.Equal(t, template, s.templateOf(a))
	s.requireInvariants()
}

// A stand-in can be committed only as the layer that it represents.
func TestStandInCommitsOnlyAsItsLayer(t *testing.T) {
	t.Parallel()
	s := newFixture(t, fetchMode)
	a := s.unpack("default", "", lowerChain, lower, lowerBlob)
	b := s.unpack("default", a, upperChain, upper, upperBlob)
	key := s.standIn("default", a, upperChain)
	before := s.datasets()
	for _, name := range []string{"default/90/bk-12345", "default/91/" + lowerChain, "default/92/" + upperChain + "-init", "saved"} {
		err := s.sn.Commit(s.ctx, name, key)
		require.ErrorIs(t, err, errdefs.ErrFailedPrecondition, name)
		assert.ErrorContains(t, err, upperChain)
	}
	require.ErrorIs(t, s.sn.Commit(s.ctx, "default/93/"+upperChain, key, snapshots.WithParent(b)), errdefs.ErrInvalidArgument)
	assert.Equal(t, before, s.datasets())
	assert.Empty(t, heldLocks(s.sn))

	// It is writable, and writes do not change the layer.
	s.write(key, "w;")
	assert.Equal(t, lower.String()+";"+upper.String()+";w;", s.visible()[key].Content)
	assert.Equal(t, lower.String()+";"+upper.String()+";", s.visible()[b].Content)
	s.requireInvariants()

	// What another differ unpacked into it is not part of the layer.
	s.commit("default/94/"+upperChain, key)
	assert.Equal(t, lower.String()+";"+upper.String()+";", s.visible()["default/94/"+upperChain].Content)
	s.requireInvariants()
}

// If a restart changes whether namespaces share templates, the commit of a stand-in is
// refused: a shared layer does not become owned, nor the reverse.
func TestStandInIsNotCommittedAfterChangeOfSharing(t *testing.T) {
	t.Parallel()
	for _, own := range []bool{false, true} {
		s := newFixture(t, settings(func(c *Config) { c.ReuseLayers, c.OwnTemplates = ReuseFetch, own }))
		s.unpack("default", "", lowerChain, lower, lowerBlob)
		key := s.standIn("default", "", lowerChain)
		settings(func(c *Config) { c.ReuseLayers, c.OwnTemplates = ReuseFetch, !own })(s)
		s.restart()
		err := s.sn.Commit(s.ctx, "default/99/"+lowerChain, key)
		require.ErrorIs(t, err, errdefs.ErrFailedPrecondition)
		s.remove(key)
		s.requireInvariants()
	}
	// A namespace cannot commit what another one prepared.
	s := newFixture(t, settings(func(c *Config) { c.ReuseLayers, c.OwnTemplates = ReuseFetch, true }))
	s.unpack("default", "", lowerChain, lower, lowerBlob)
	key := s.standIn("default", "", lowerChain)
	require.ErrorIs(t, s.sn.Commit(s.ctx, "zoo/99/"+lowerChain, key), errdefs.ErrFailedPrecondition)
	other := s.backend("zoo", "extract-1-x "+lowerChain)
	s.prepare(other, "", ref(lowerChain))
	_, _, ok := s.sn.StandIn(s.dataset(other))
	assert.False(t, ok, "another namespace's layer is not found")
	s.requireInvariants()
}

// Renew and Discard leave a stand-in alone: nothing was unpacked into it.
func TestRenewRefusesStandIn(t *testing.T) {
	t.Parallel()
	s := newFixture(t, fetchMode)
	s.unpack("default", "", lowerChain, lower, lowerBlob)
	key := s.standIn("zoo", "", lowerChain)
	_, _, err := s.sn.Renew(s.ctx, s.dataset(key), zfs.ErrNoSpace)
	require.ErrorIs(t, err, errdefs.ErrFailedPrecondition)
	require.NoError(t, s.sn.Discard(s.ctx, s.dataset(key)))
	s.commit("zoo/99/"+lowerChain, key)
	s.requireInvariants()
}

// invariants.Check returns an error for a stand-in whose runtime is not a clone of its layer,
// and the stand-in cannot be committed.
func TestInvariantsDetectWrongStandIn(t *testing.T) {
	t.Parallel()
	s := newFixture(t, fetchMode)
	a := s.unpack("default", "", lowerChain, lower, lowerBlob)
	s.unpack("default", a, upperChain, upper, upperBlob)
	key := s.standIn("zoo", a, upperChain)
	runtime := s.dataset(key)
	check := func() error {
		list, err := s.pool.List(s.ctx, s.base.String())
		require.NoError(t, err)
		return invariants.Check(s.base, list)
	}
	require.NoError(t, check())
	s.pool.EditFS(runtime, func(fs *zfsfake.FS) { fs.Origin = s.base.Storage() + "/" + lowerChain + "@" + layout.Extracted })
	require.ErrorContains(t, check(), "stand-in for")
	s.restart()
	require.ErrorIs(t, s.sn.Commit(s.ctx, "zoo/99/"+upperChain, key), errdefs.ErrFailedPrecondition, "it cannot be committed")
}
