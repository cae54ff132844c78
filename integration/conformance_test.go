package integration

import (
	"context"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/testsuite"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/harness"
	"github.com/zfstpl/zfstpl/integration/testpool"
	"github.com/zfstpl/zfstpl/snapshotter"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// conformance runs containerd's own suite of 21 cases with each client of ZFS. One case
// stacks 128 layers, which takes minutes in an emulated machine. So the short form runs
// the suite with one client, and with none if short is empty.
func conformance(t *testing.T, short zfs.Choice, start func(t *testing.T, choice zfs.Choice) factory) {
	t.Parallel()
	for _, choice := range testpool.Clients() {
		t.Run(string(choice), func(t *testing.T) {
			if testing.Short() && choice != short {
				t.Skip("takes long: 'make test-long' runs it")
			}
			t.Parallel()
			open := start(t, choice)
			testsuite.SnapshotterSuite(t, "zfstpl", func(context.Context, string) (snapshots.Snapshotter, func() error, error) {
				sn, end := open()
				return sn, end, nil
			})
		})
	}
}

// factory makes a snapshotter for a case, and says how to end it.
type factory func() (snapshots.Snapshotter, func() error)

// The suite closes snapshotters itself.
func TestConformanceInProcess(t *testing.T) {
	conformance(t, "", func(t *testing.T, choice zfs.Choice) factory {
		return func() (snapshots.Snapshotter, func() error) {
			base := pool.NewBaseWith(t, choice)
			sn, err := snapshotter.New(context.Background(), base.Client, snapshotter.Config{Base: base.Base})
			require.NoError(t, err)
			return sn, sn.Close
		}
	})
}

func TestConformanceOverTheSocket(t *testing.T) {
	conformance(t, "", func(t *testing.T, choice zfs.Choice) factory {
		return func() (snapshots.Snapshotter, func() error) {
			return harness.StartDaemon(t, pool.NewBaseWith(t, choice)).Snapshotter(t), nil
		}
	})
}

// Through containerd, its metadata, its names and its garbage collection take part. The
// cases share a containerd and have namespaces of their own. The short form runs the
// native client with the newer releases and the command client with the older ones.
func TestConformanceThroughContainerd(t *testing.T) {
	short := zfs.Native
	if containerd17(t) {
		short = zfs.Command
	}
	conformance(t, short, func(t *testing.T, choice zfs.Choice) factory {
		c := startContainerd(t, harness.StartDaemon(t, pool.NewBaseWith(t, choice)))
		return func() (snapshots.Snapshotter, func() error) {
			return c.snapshotter(t, "case-"+layout.NewID().String()), nil
		}
	})
}

// The suite does not ask Mounts about a View, and containerd's own plugin for
// ZFS returns without ro there: a container could then write into an image.
func TestMountsOfAViewStayReadOnly(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := pool.NewBase(t)
	sn := harness.NewSnapshotter(t, base)
	_, err := sn.Prepare(ctx, "layer", "")
	require.NoError(t, err)
	require.NoError(t, sn.Commit(ctx, "image", "layer"))

	first, err := sn.View(ctx, "view", "image")
	require.NoError(t, err)
	again, err := sn.Mounts(ctx, "view")
	require.NoError(t, err)
	require.Equal(t, first, again)
	require.Contains(t, again[0].Options, "ro")

	err = mount.WithTempMount(ctx, again, func(root string) error { return harness.Touch(root, "file") })
	require.ErrorContains(t, err, "read-only file system")
}
