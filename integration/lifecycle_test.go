package integration

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/harness"
	"github.com/zfstpl/zfstpl/snapshotter"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

func TestLayersBecomeTemplatesNamedByChainID(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := pool.NewBase(t)
	sn := harness.NewSnapshotter(t, base)
	one := harness.PullLayer(t, sn, "default", 1, "", harness.ChainID(1))
	two := harness.PullLayer(t, sn, "default", 3, one, harness.ChainID(2))

	origins := make(map[string]string)
	for _, d := range base.List(t) {
		origins[strings.TrimPrefix(d.Name, base.String())] = strings.TrimPrefix(d.Origin, base.String())
	}
	assert.Equal(t, "/storage/empty@extracted", origins["/storage/"+harness.ChainID(1)])
	assert.Equal(t, "/storage/"+harness.ChainID(1)+"@extracted", origins["/storage/"+harness.ChainID(2)])

	mounts, err := sn.Prepare(ctx, "default/9/web", two)
	require.NoError(t, err)
	require.Equal(t, "zfs", mounts[0].Type)
	require.Regexp(t, "^"+base.Runtime()+"/web-[0-9a-f]{16}$", mounts[0].Source)
	harness.Mounted(t, mounts, func(root string) {
		assert.FileExists(t, filepath.Join(root, "layer-0001"))
		assert.FileExists(t, filepath.Join(root, "layer-0002"))
	})
}

// Two namespaces pull the same image: one template, and it stays until both
// have let go.
func TestNamespacesShareATemplate(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := pool.NewBase(t)
	sn := harness.NewSnapshotter(t, base)
	first := harness.PullLayer(t, sn, "default", 1, "", harness.ChainID(7))

	// The second namespace learns that the layer exists, and finds it as
	// containerd's metadata store does.
	_, err := sn.Prepare(ctx, harness.Extraction("k8s.io", 1, harness.ChainID(7)), "", harness.WithRef(harness.ChainID(7)))
	require.True(t, errdefs.IsAlreadyExists(err), "%v", err)
	assert.Equal(t, []string{first}, findByRef(t, sn, harness.ChainID(7), ""))

	// Without the label it is extracted again, and joins at Commit.
	key, second := harness.Extraction("k8s.io", 2, harness.ChainID(7)), "k8s.io/3/"+harness.ChainID(7)
	_, err = sn.Prepare(ctx, key, "")
	require.NoError(t, err)
	require.NoError(t, sn.Commit(ctx, second, key))

	require.NoError(t, sn.Remove(ctx, first))
	require.NoError(t, sn.Cleanup(ctx))
	assert.Contains(t, base.Names(t), "/storage/"+harness.ChainID(7))
	require.NoError(t, sn.Remove(ctx, second))
	require.NoError(t, sn.Cleanup(ctx))
	assert.Equal(t, []string{"", "/runtime", "/storage", "/storage/empty"}, base.Names(t))
}

func findByRef(t testing.TB, sn snapshots.Snapshotter, chain, parent string) []string {
	t.Helper()
	var names []string
	filter := fmt.Sprintf("labels.%q==%s,parent==%q", snapshots.LabelSnapshotRef, chain, parent)
	require.NoError(t, sn.Walk(context.Background(), func(_ context.Context, i snapshots.Info) error {
		names = append(names, i.Name)
		return nil
	}, filter))
	return names
}

// An image that was removed and is pulled again is still there: no layer is
// unpacked a second time.
func TestCachedTemplatesAreReused(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := pool.NewBase(t)
	sn, err := snapshotter.New(ctx, base.Client, snapshotter.Config{Base: base.Base, CacheKeep: snapshotter.KeepForever, ReuseLayers: snapshotter.ReuseSkip})
	require.NoError(t, err)
	one := harness.PullLayer(t, sn, "default", 1, "", harness.ChainID(1))
	two := harness.PullLayer(t, sn, "default", 3, one, harness.ChainID(2))
	require.NoError(t, sn.Remove(ctx, two))
	require.NoError(t, sn.Remove(ctx, one))
	require.NoError(t, sn.Cleanup(ctx))
	assert.Empty(t, harness.Everything(t, sn), "cached templates are invisible")
	require.NoError(t, sn.Close())

	sn, err = snapshotter.New(ctx, base.Client, snapshotter.Config{Base: base.Base, CacheKeep: snapshotter.KeepForever, ReuseLayers: snapshotter.ReuseSkip})
	require.NoError(t, err)
	defer func() { require.NoError(t, sn.Close()) }()
	_, err = sn.Prepare(ctx, harness.Extraction("default", 5, harness.ChainID(1)), "", harness.WithRef(harness.ChainID(1)))
	require.True(t, errdefs.IsAlreadyExists(err), "%v", err)
	found := findByRef(t, sn, harness.ChainID(1), "")
	require.Len(t, found, 1)
	_, err = sn.Prepare(ctx, harness.Extraction("default", 6, harness.ChainID(2)), found[0], harness.WithRef(harness.ChainID(2)))
	require.True(t, errdefs.IsAlreadyExists(err), "%v", err)
	require.Len(t, findByRef(t, sn, harness.ChainID(2), found[0]), 1)
}

// A program in the container writes through mmap and the snapshot is committed
// while it runs: what it wrote is in the template, and it can go on.
func TestCommitOfALiveContainerKeepsMmapWrites(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := pool.NewBase(t)
	sn := harness.NewSnapshotter(t, base)
	mounts, err := sn.Prepare(ctx, "live", "")
	require.NoError(t, err)
	harness.Mounted(t, mounts, func(root string) {
		path := filepath.Join(root, "data")
		require.NoError(t, os.WriteFile(path, make([]byte, 4096), 0o644))
		file, err := os.OpenFile(path, os.O_RDWR, 0)
		require.NoError(t, err)
		defer file.Close()
		memory, err := syscall.Mmap(int(file.Fd()), 0, 4096, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
		require.NoError(t, err)
		copy(memory, "through mmap")
		require.NoError(t, sn.Commit(ctx, "image", "live"))
		copy(memory, "and onwards ")
		require.NoError(t, syscall.Munmap(memory))

		require.NoError(t, sn.Cleanup(ctx), "a mounted runtime is no error")
		require.NoError(t, harness.Touch(root, "still-writable"))
	})
	view, err := sn.View(ctx, "view", "image")
	require.NoError(t, err)
	harness.Mounted(t, view, func(root string) {
		content, err := os.ReadFile(filepath.Join(root, "data"))
		require.NoError(t, err)
		assert.Equal(t, "through mmap", string(content[:12]))
		assert.NoFileExists(t, filepath.Join(root, "still-writable"))
	})
	require.NoError(t, sn.Cleanup(ctx))
	for _, name := range base.Names(t) {
		assert.NotContains(t, name, "/runtime/", "once unmounted the runtime goes")
	}
}

func TestUsageCountsWhatASnapshotAdds(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := pool.NewBase(t)
	sn := harness.NewSnapshotter(t, base, func(c *snapshotter.Config) { c.MountDir = base.MountDir(t) })
	mounts, err := sn.Prepare(ctx, "fill", "")
	require.NoError(t, err)
	harness.Mounted(t, mounts, func(root string) {
		noise := make([]byte, 2<<20)
		_, err := rand.Read(noise)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(root, "noise"), noise, 0o644))
		for i := range 10 {
			require.NoError(t, harness.Touch(root, fmt.Sprint(i)))
		}
	})
	require.NoError(t, sn.Commit(ctx, "image", "fill"))
	u, err := sn.Usage(ctx, "image")
	require.NoError(t, err)
	assert.EqualValues(t, 11, u.Inodes)
	assert.InDelta(t, 2<<20, u.Size, 256<<10)

	_, err = sn.Prepare(ctx, "container", "image")
	require.NoError(t, err)
	u, err = sn.Usage(ctx, "container")
	require.NoError(t, err)
	assert.Zero(t, u.Inodes)
	assert.Less(t, u.Size, int64(256<<10))

	running, err := sn.Prepare(ctx, "running", "image")
	require.NoError(t, err)
	harness.Mounted(t, running, func(root string) {
		require.NoError(t, harness.Touch(root, "new"))
		eventually(t, "an object is counted where it is in use", func() bool {
			u, err := sn.Usage(ctx, "running")
			require.NoError(t, err)
			return u.Inodes == 1
		})
	})
}

// What a crash leaves of a commit where it is not one transaction (below 2.4)
// is taken back at the next start; the snapshot is active as before.
func TestInterruptedCommitIsRolledBack(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := pool.NewBase(t)
	sn := harness.NewSnapshotter(t, base)
	mounts, err := sn.Prepare(ctx, "work", "")
	require.NoError(t, err)
	require.NoError(t, sn.Close())
	runtime := mounts[0].Source
	before := base.Names(t)
	partial := base.Storage() + "/" + harness.ChainID(1)
	require.NoError(t, base.Client.Apply(ctx,
		zfs.Snapshot(runtime+"@extracted"), zfs.Clone(runtime+"@extracted", partial)))

	again := harness.NewSnapshotter(t, base)
	assert.Equal(t, before, base.Names(t))
	base.Check(t)
	require.NoError(t, again.Commit(ctx, "image", "work"))
}

// A clone without a record is what a crash leaves of a Prepare below 2.4.
func TestACloneWithoutARecordIsDestroyed(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := pool.NewBase(t)
	orphan := base.Runtime() + "/orphan-0123456789abcdef"
	require.NoError(t, base.Client.Apply(ctx, zfs.Clone(base.Empty().Snapshot(), orphan)))
	sn := harness.NewSnapshotter(t, base)
	assert.Empty(t, harness.Everything(t, sn))
	require.NoError(t, sn.Cleanup(ctx))
	assert.NotContains(t, base.Names(t), "/runtime/orphan-0123456789abcdef")
}

// A backup tool snapshots everything: its snapshots are never destroyed and
// hold only the dataset they are on.
func TestForeignSnapshotsHoldOnlyTheirDataset(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := pool.NewBase(t)
	sn := harness.NewSnapshotter(t, base)
	held, err := sn.Prepare(ctx, "held", "")
	require.NoError(t, err)
	_, err = sn.Prepare(ctx, "free", "")
	require.NoError(t, err)
	foreign := held[0].Source + "@autosnap_2026-01-01"
	require.NoError(t, base.Client.Apply(ctx, zfs.Snapshot(foreign)))
	require.NoError(t, sn.Remove(ctx, "held"))
	require.NoError(t, sn.Remove(ctx, "free"))
	require.NoError(t, sn.Cleanup(ctx))
	assert.Equal(t, []string{"", "/runtime", strings.TrimPrefix(held[0].Source, base.String()), "/storage", "/storage/empty"}, base.Names(t))
	require.NoError(t, base.Client.DestroySnapshot(ctx, foreign))
	assert.Eventually(t, func() bool { return !slices.Contains(base.Names(t), strings.TrimPrefix(held[0].Source, base.String())) },
		harness.Patience, time.Second, "it is tried again by itself")
}
