package integration

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/zfstpl/zfstpl/integration/harness"
	"github.com/zfstpl/zfstpl/snapshotter"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// A process that starts a command lends it all its descriptors until the exec, and
// with them what these have mounted. What is frozen goes all the same.
func TestFrozenSnapshotsGoBesideCommands(t *testing.T) {
	t.Parallel()
	base := pool.NewBase(t)
	ctx := context.Background()
	run := base.Clone("web", layout.NewID())
	require.NoError(t, base.Client.Apply(ctx, zfs.Clone(base.Empty().Snapshot(), run)))
	frozen, err := base.Client.TakeTemporary(ctx, run)
	require.NoError(t, err)
	root, err := base.Client.AttachRoot(ctx, frozen.Snapshot)
	require.NoError(t, err)
	lent, err := unix.FcntlInt(root.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	require.NoError(t, err)
	require.NoError(t, root.Close())
	require.Error(t, base.Client.DestroySnapshot(ctx, frozen.Snapshot), "it is busy")
	time.AfterFunc(time.Second, func() { assert.NoError(t, unix.Close(lent)) })
	require.NoError(t, frozen.Close())
	for _, d := range base.List(t) {
		if d.Name == run {
			assert.Empty(t, d.Snapshots)
		}
	}
}

// A container is committed while it is compared, but for a moment when nothing
// has the look's snapshot mounted: promote takes it along, and it goes all the same.
func TestFrozenSnapshotIsFollowedThroughAPromote(t *testing.T) {
	t.Parallel()
	base := pool.NewBase(t)
	ctx := context.Background()
	sn := harness.NewSnapshotter(t, base, func(c *snapshotter.Config) { c.CacheKeep = snapshotter.KeepForever })
	mounts, err := sn.Prepare(ctx, "web", "")
	require.NoError(t, err)
	frozen, err := base.Client.TakeTemporary(ctx, mounts[0].Source)
	require.NoError(t, err)
	require.NoError(t, sn.Commit(ctx, "saved", "web"))
	require.NoError(t, frozen.Close())
	for _, d := range base.List(t) {
		assert.Subset(t, []string{layout.Extracted}, d.Snapshots, d.Name)
	}
	require.NoError(t, sn.Cleanup(ctx))
}
