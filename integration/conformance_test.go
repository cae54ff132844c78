package integration

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/testsuite"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/harness"
	"github.com/zfstpl/zfstpl/snapshotter"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// flavor is a way to run a snapshotter: a client of ZFS, and how many ready runtimes it has.
type flavor struct {
	client zfs.Choice
	ready  int
}

func (f flavor) String() string { return fmt.Sprintf("%s, %d ready runtimes", f.client, f.ready) }

var flavors = []flavor{{zfs.Native, 0}, {zfs.Native, 1}, {zfs.Native, 16}, {zfs.Command, 16}}

// conformance runs containerd's own suite of 21 cases with each flavor. One case stacks 128
// layers, which takes minutes in an emulated machine. So the short form runs the suite with
// one flavor, and with none if short has no client.
func conformance(t *testing.T, short flavor, start func(t *testing.T, f flavor) factory) {
	t.Parallel()
	for _, f := range flavors {
		t.Run(f.String(), func(t *testing.T) {
			if testing.Short() && f != short {
				t.Skip("takes long: 'make test-long' runs it")
			}
			t.Parallel()
			open := start(t, f)
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
	conformance(t, flavor{}, func(t *testing.T, f flavor) factory {
		return func() (snapshots.Snapshotter, func() error) {
			base := pool.NewBaseWith(t, f.client)
			root, err := os.OpenRoot(base.Root)
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, root.Close()) })
			sn, err := snapshotter.New(context.Background(), base.Client, snapshotter.Config{Base: base.Base, Root: root, Ready: f.ready})
			require.NoError(t, err)
			return sn, sn.Close
		}
	})
}

// readyFlag is the flag of a daemon for a number of ready runtimes.
func (f flavor) readyFlag() string { return fmt.Sprintf("--ready-runtimes=%d", f.ready) }

func TestConformanceOverTheSocket(t *testing.T) {
	conformance(t, flavor{}, func(t *testing.T, f flavor) factory {
		return func() (snapshots.Snapshotter, func() error) {
			return harness.StartDaemon(t, pool.NewBaseWith(t, f.client), f.readyFlag()).Snapshotter(t), nil
		}
	})
}

// Through containerd, its metadata, its names and its garbage collection take part. The
// cases share a containerd and have namespaces of their own. The short form runs the
// native client with the newer releases and the command client with the older ones.
func TestConformanceThroughContainerd(t *testing.T) {
	short := flavor{zfs.Native, 16}
	if containerd17(t) {
		short = flavor{zfs.Command, 16}
	}
	conformance(t, short, func(t *testing.T, f flavor) factory {
		c := startContainerd(t, harness.StartDaemon(t, pool.NewBaseWith(t, f.client), f.readyFlag()))
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
