package integration

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/harness"
	"github.com/zfstpl/zfstpl/integration/testpool"
	"github.com/zfstpl/zfstpl/snapshotter"
)

func withMaxSize(bytes int) snapshots.Opt {
	return snapshots.WithLabels(map[string]string{snapshots.LabelSnapshotMaxSize: fmt.Sprint(bytes)})
}

func refquota(t testing.TB, base *testpool.Base, dataset string) string {
	t.Helper()
	props, err := base.Client.Properties(context.Background(), dataset, "refquota")
	require.NoError(t, err)
	return props["refquota"].Value
}

// What a container may add is bounded, and its image is not counted; no other container
// feels the bound, and what becomes of the container has none.
func TestQuotaBoundsWhatAContainerAdds(t *testing.T) {
	onlyOnce(t, olderReleases, aQuota)
	t.Parallel()
	ctx := context.Background()
	base := pool.NewBase(t)
	sn := harness.NewSnapshotter(t, base, func(c *snapshotter.Config) { c.Quota = 6 * harness.MiB })

	mounts, err := sn.Prepare(ctx, "making", "", withMaxSize(24*harness.MiB))
	require.NoError(t, err)
	harness.Mounted(t, mounts, func(root string) {
		_, err := harness.Fill(filepath.Join(root, "image"), 10*harness.MiB)
		require.NoError(t, err, "a label goes before the default")
	})
	require.NoError(t, sn.Commit(ctx, "image", "making"))

	bounded, err := sn.Prepare(ctx, "bounded", "image")
	require.NoError(t, err)
	sibling, err := sn.Prepare(ctx, "sibling", "image", withMaxSize(96*harness.MiB))
	require.NoError(t, err)
	harness.Mounted(t, bounded, func(root string) {
		n, err := harness.Fill(filepath.Join(root, "noise"), 48*harness.MiB)
		require.True(t, errors.Is(err, syscall.EDQUOT), "%d bytes were written: %v", n, err)
		// ZFS counts what is not in the pool yet as more than it will be, and
		// sees what is a little late.
		assert.InDelta(t, 6*harness.MiB, n, 5*harness.MiB)
		harness.Mounted(t, sibling, func(root string) {
			_, err := harness.Fill(filepath.Join(root, "noise"), 16*harness.MiB)
			require.NoError(t, err)
		})

		// It is committed while it runs: the template has no bound, and what
		// runs on has the one it had.
		require.NoError(t, sn.Commit(ctx, "saved", "bounded"))
		_, err = harness.Fill(filepath.Join(root, "more"), 48*harness.MiB)
		require.True(t, errors.Is(err, syscall.EDQUOT), "%v", err)
	})
	view, err := sn.View(ctx, "view", "saved")
	require.NoError(t, err)
	require.NoError(t, sn.Remove(ctx, "view"))
	for _, d := range base.List(t) {
		if view[0].Source == d.Name+"@extracted" {
			assert.Equal(t, "0", refquota(t, base, d.Name), "a template has no bound")
		}
	}
	again, err := sn.Prepare(ctx, "again", "saved")
	require.NoError(t, err)
	harness.Mounted(t, again, func(root string) {
		n, err := harness.Fill(filepath.Join(root, "again"), 2*harness.MiB)
		require.NoError(t, err, "what the image has is not counted; %d bytes were written", n)
	})
	require.NoError(t, sn.Cleanup(ctx))
}

// A layer is unpacked whatever the default is and its annotations say.
func TestQuotaSparesExtractions(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := pool.NewBase(t)
	sn := harness.NewSnapshotter(t, base, func(c *snapshotter.Config) { c.Quota = harness.MiB })
	for i, label := range []string{"1", "lots"} {
		mounts, err := sn.Prepare(ctx, harness.Extraction("default", i+1, harness.ChainID(i+1)), "", harness.WithRef(harness.ChainID(i+1)),
			snapshots.WithLabels(map[string]string{snapshots.LabelSnapshotMaxSize: label, snapshots.LabelSnapshotRef: harness.ChainID(i + 1)}))
		require.NoError(t, err)
		assert.Equal(t, "0", refquota(t, base, mounts[0].Source))
	}
}
