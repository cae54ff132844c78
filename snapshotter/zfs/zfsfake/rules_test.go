package zfsfake

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// The tests are only valid if the fake pool follows the rules of ZFS.
func TestFakePoolFollowsTheRulesOfZFS(t *testing.T) {
	t.Parallel()
	for _, options := range [][]Option{nil, {InSteps}} {
		p := New(t, options...)
		ctx := t.Context()
		require.NoError(t, p.Create(ctx, "tank/run", nil))
		p.EditFS("tank/run", func(fs *FS) { fs.Content = "a" })
		require.ErrorIs(t, p.Create(ctx, "tank/run", nil), zfs.ErrExists)
		require.ErrorIs(t, p.Create(ctx, "tank/no/run", nil), zfs.ErrNotFound)
		commit := []zfs.Op{zfs.Snapshot("tank/run@x"), zfs.Clone("tank/run@x", "tank/tpl"), zfs.Promote("tank/tpl", "tank/run"), zfs.Set("tank/tpl", "a:b", "c")}

		before := p.Now()
		bad := append(commit[:len(commit):len(commit)], zfs.Set("tank/none", "a:b", "c"))
		require.ErrorIs(t, p.Apply(ctx, bad...), zfs.ErrNotFound)
		assert.Equal(t, before.FS, p.Now().FS, "all ops or none")

		require.NoError(t, p.Apply(ctx, commit...))
		assert.Equal(t, "tank/tpl@x", p.Now().FS["tank/run"].Origin, "promote reverses the origin")
		assert.Empty(t, p.Now().FS["tank/tpl"].Origin)
		assert.Empty(t, p.Now().FS["tank/run"].Snaps)
		require.ErrorIs(t, p.Apply(ctx, commit[1]), zfs.ErrNotFound, "promote has moved the snapshot")
		require.NoError(t, p.Apply(ctx, zfs.Snapshot("tank/run@x")), "the name of the snapshot is free again")

		left, err := p.Destroy(ctx, "x", []string{"tank/tpl", "tank/run", "tank/none"})
		require.NoError(t, err)
		require.Len(t, left, 1)
		require.ErrorIs(t, left["tank/tpl"], zfs.ErrHasClones)

		require.NoError(t, p.Apply(ctx, zfs.Snapshot("tank/tpl@daily")))
		left, _ = p.Destroy(ctx, "x", []string{"tank/tpl"})
		require.ErrorIs(t, left["tank/tpl"], zfs.ErrForeign)
		require.NoError(t, p.DestroySnapshot(ctx, "tank/tpl@daily"))
		p.Edit(func(s *State) { s.Mounted["tank/tpl@x"] = true })
		left, _ = p.Destroy(ctx, "x", []string{"tank/tpl"})
		require.ErrorIs(t, left["tank/tpl"], zfs.ErrBusy)

		p.FailAt(Before(Inherit), Crash())
		require.NoError(t, p.Apply(ctx, zfs.Set("tank/tpl", "a:b", "d")))
		require.True(t, errors.Is(p.Apply(ctx, zfs.Inherit("tank/tpl", "a:b")), ErrCrashed))
		q := p.AfterCrash()
		assert.Equal(t, "d", q.Now().FS["tank/tpl"].Props["a:b"])
	}
}
