package integration

import (
	"context"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/testsuite"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/testpool"
	"github.com/zfstpl/zfstpl/snapshotter"
)

// newSnapshotter is a snapshotter of this process, closed when t ends.
func newSnapshotter(t testing.TB, base *testpool.Base) *snapshotter.Snapshotter {
	t.Helper()
	sn, err := snapshotter.New(context.Background(), base.Client, snapshotter.Config{Base: base.Base})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, sn.Close()) })
	return sn
}

// containerd's own suite, 21 cases. It closes snapshotters itself.
func TestConformanceInProcess(t *testing.T) {
	t.Parallel()
	testsuite.SnapshotterSuite(t, "zfstpl", func(ctx context.Context, _ string) (snapshots.Snapshotter, func() error, error) {
		base := pool.NewBase(t)
		sn, err := snapshotter.New(ctx, base.Client, snapshotter.Config{Base: base.Base})
		if err != nil {
			return nil, nil, err
		}
		return sn, sn.Close, nil
	})
}

func TestConformanceOverTheSocket(t *testing.T) {
	t.Parallel()
	testsuite.SnapshotterSuite(t, "zfstpl", func(context.Context, string) (snapshots.Snapshotter, func() error, error) {
		d := startDaemon(t, pool.NewBase(t))
		return d.snapshotter(t), nil, nil
	})
}

// The suite does not ask Mounts about a View, and containerd's own plugin for
// ZFS answers without ro there: a container could then write into an image.
func TestMountsOfAViewStayReadOnly(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := pool.NewBase(t)
	sn := newSnapshotter(t, base)
	_, err := sn.Prepare(ctx, "layer", "")
	require.NoError(t, err)
	require.NoError(t, sn.Commit(ctx, "image", "layer"))

	first, err := sn.View(ctx, "view", "image")
	require.NoError(t, err)
	again, err := sn.Mounts(ctx, "view")
	require.NoError(t, err)
	require.Equal(t, first, again)
	require.Contains(t, again[0].Options, "ro")

	err = mount.WithTempMount(ctx, again, func(root string) error { return touch(root, "file") })
	require.ErrorContains(t, err, "read-only file system")
}
