package integration

import (
	"context"
	"os/exec"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// A process that starts commands lends each, for a moment, all its descriptors, and
// with them what these have mounted. What is frozen goes all the same.
func TestFrozenSnapshotsGoBesideCommands(t *testing.T) {
	t.Parallel()
	base := pool.NewBase(t)
	ctx, cancel := context.WithCancel(context.Background())
	var commands sync.WaitGroup
	for range 4 {
		commands.Go(func() {
			for ctx.Err() == nil {
				_ = exec.CommandContext(ctx, "true").Run() // the last one is ended
			}
		})
	}
	defer commands.Wait()
	defer cancel()
	run := base.Clone("web", layout.NewID())
	require.NoError(t, base.Client.Apply(ctx, zfs.Clone(base.Empty().Snapshot(), run), zfs.Set(run, "zfstpl:trash", "2026-01-01T00:00:00Z")))
	for range 40 {
		frozen, err := base.Client.Freeze(ctx, run)
		require.NoError(t, err)
		root, err := base.Client.AttachRoot(ctx, frozen.Snapshot)
		require.NoError(t, err)
		require.NoError(t, root.Close())
		assert.NoError(t, frozen.Close())
	}
	for _, d := range base.List(t) {
		if d.Name == run {
			assert.Empty(t, d.Snapshots)
		}
	}
}
