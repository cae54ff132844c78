package integration

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/zfstpl/zfstpl/integration/harness"
	"github.com/zfstpl/zfstpl/integration/testpool"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// eachClient runs a test with each way to speak to ZFS, on a base of its own.
func eachClient(t *testing.T, test func(t *testing.T, base *testpool.Base)) {
	t.Parallel()
	for _, choice := range testpool.Clients() {
		t.Run(string(choice), func(t *testing.T) {
			t.Parallel()
			base := pool.NewBaseWith(t, choice)
			kind, _ := base.Client.Kind()
			require.Equal(t, choice, kind)
			test(t, base)
		})
	}
}

// On the releases that are tested, the daemon speaks natively by itself.
func TestAutoIsNative(t *testing.T) {
	t.Parallel()
	kind, why := pool.NewBaseWith(t, zfs.Auto).Client.Kind()
	assert.NoError(t, why)
	assert.Equal(t, zfs.Native, kind)
}

func TestClientErrorsHaveKinds(t *testing.T) {
	eachClient(t, func(t *testing.T, base *testpool.Base) {
		ctx, c := context.Background(), base.Client
		empty, run := base.Empty().Snapshot(), runtimeOf(base, "a")
		require.NoError(t, c.Apply(ctx, zfs.Clone(empty, run), zfs.Set(run, "zfstpl:test", "x")))
		for what, want := range map[string]struct {
			kind error
			ops  []zfs.Op
		}{
			"clone: there":             {zfs.ErrExists, []zfs.Op{zfs.Clone(empty, run)}},
			"clone: no snapshot":       {zfs.ErrNotFound, []zfs.Op{zfs.Clone(run+"@none", run+"2")}},
			"clone: no parent":         {zfs.ErrNotFound, []zfs.Op{zfs.Clone(empty, base.String()+"/none/a")}},
			"quota: there":             {zfs.ErrExists, []zfs.Op{zfs.Clone(empty, run), zfs.Quota(run, 1<<30)}},
			"snapshot: no file system": {zfs.ErrNotFound, []zfs.Op{zfs.Snapshot(run + "2@x")}},
			"snapshot: there":          {zfs.ErrExists, []zfs.Op{zfs.Snapshot(empty)}},
			"set: no file system":      {zfs.ErrNotFound, []zfs.Op{zfs.Set(run+"2", "a:b", "c")}},
			"promote: no clone":        {zfs.ErrInvalid, []zfs.Op{zfs.Promote(base.Empty().Dataset(), run)}},
			"the third of three": {zfs.ErrExists, []zfs.Op{
				zfs.Clone(empty, run+"3"), zfs.Set(run+"3", "a:b", "c"), zfs.Snapshot(empty)}},
		} {
			err := c.Apply(ctx, want.ops...)
			assert.ErrorIs(t, err, want.kind, what)
		}
		assert.Equal(t, []string{"", strings.TrimPrefix(run, base.String()), "/storage", "/storage/empty"},
			slices.DeleteFunc(base.Names(t), func(name string) bool { return name == "/runtime" }),
			"a list that failed left nothing")
		_, err := c.List(ctx, base.String()+"/none")
		assert.ErrorIs(t, err, zfs.ErrNotFound)
		_, err = c.Space(ctx, base.String()+"/none")
		assert.ErrorIs(t, err, zfs.ErrNotFound)
		_, err = c.Objects(ctx, base.String()+"/none")
		assert.ErrorIs(t, err, zfs.ErrNotFound)
	})
}

// runtimeOf is a name that the invariants take for a runtime's. What a test
// makes there carries a property of the test or nothing.
func runtimeOf(base *testpool.Base, name string) string {
	return base.Clone(name, layout.NewID())
}

// Two snapshots of one file system do not fit into a txg.
func TestListWithTwoSnapshotsOfOneFileSystemFails(t *testing.T) {
	eachClient(t, func(t *testing.T, base *testpool.Base) {
		ctx, c := context.Background(), base.Client
		run := runtimeOf(base, "a")
		require.NoError(t, c.Apply(ctx, zfs.Clone(base.Empty().Snapshot(), run), zfs.Set(run, "zfstpl:test", "x")))
		err := c.Apply(ctx, zfs.Snapshot(run+"@one"), zfs.Snapshot(run+"@two"))
		assert.ErrorIs(t, err, zfs.ErrBusy)
		assert.NotErrorIs(t, err, zfs.ErrSuspended)
		for _, d := range base.List(t) {
			if d.Name == run {
				assert.Empty(t, d.Snapshots, "the first was taken back")
			}
		}
	})
}

func propertiesOf(t *testing.T, base *testpool.Base, name string) map[string]string {
	t.Helper()
	for _, d := range base.List(t) {
		if d.Name == name {
			return d.Props
		}
	}
	require.Fail(t, "no such dataset", name)
	return nil
}

func TestDestroyKeepsForeignSnapshots(t *testing.T) {
	eachClient(t, func(t *testing.T, base *testpool.Base) {
		ctx, c := context.Background(), base.Client
		tpl, run := runtimeOf(base, "tpl"), runtimeOf(base, "run")
		require.NoError(t, c.Apply(ctx, zfs.Clone(base.Empty().Snapshot(), tpl)))
		require.NoError(t, c.Apply(ctx, zfs.Snapshot(tpl+"@hourly")))
		require.NoError(t, c.Apply(ctx, zfs.Snapshot(tpl+"@extracted"), zfs.Clone(tpl+"@extracted", run)))
		left, err := c.Destroy(ctx, "extracted", []string{tpl, tpl + "-none"})
		require.NoError(t, err)
		require.Len(t, left, 1)
		assert.ErrorIs(t, left[tpl], zfs.ErrForeign)

		require.NoError(t, c.DestroyForeign(ctx, "extracted", tpl))
		require.NoError(t, c.DestroyForeign(ctx, "extracted", tpl), "there is none left")
		require.NoError(t, c.DestroyForeign(ctx, "extracted", tpl+"-none"))
		left, err = c.Destroy(ctx, "extracted", []string{tpl})
		require.NoError(t, err)
		assert.ErrorIs(t, left[tpl], zfs.ErrHasClones)

		err = mount.WithTempMount(ctx, []mount.Mount{{Type: "zfs", Source: run}}, func(string) error {
			left, err := c.Destroy(ctx, "extracted", []string{run, tpl})
			assert.ErrorIs(t, left[run], zfs.ErrBusy)
			assert.ErrorIs(t, left[tpl], zfs.ErrHasClones)
			return err
		})
		require.NoError(t, err)
		left, err = c.Destroy(ctx, "extracted", []string{run, tpl})
		require.NoError(t, err)
		assert.Empty(t, left)
	})
}

// A template that turns out to be mounted loses its snapshot in a full pool, and where
// it was written into: the snapshot is destroyed first, and there is no space to take it
// again, or it would be another. The error says so.
func TestABusyTemplateLosesItsSnapshot(t *testing.T) {
	t.Parallel()
	p := smallPool(t, 64*harness.MiB)
	base := p.NewBase(t)
	ctx, c := context.Background(), base.Client
	tpl, run := runtimeOf(base, "tpl"), runtimeOf(base, "run")
	require.NoError(t, c.Apply(ctx, zfs.Clone(base.Empty().Snapshot(), run)))
	require.NoError(t, mount.WithTempMount(ctx, []mount.Mount{{Type: "zfs", Source: run}}, func(root string) error {
		return os.WriteFile(filepath.Join(root, "file"), []byte("of the layer"), 0o644)
	}))
	require.NoError(t, c.Apply(ctx, zfs.Snapshot(run+"@extracted"), zfs.Clone(run+"@extracted", tpl), zfs.Promote(tpl, run)))
	left, err := c.Destroy(ctx, "extracted", []string{run})
	require.NoError(t, err)
	require.Empty(t, left)
	destroyBusy := func(write string) (snapshotLost bool) {
		err := mount.WithTempMount(ctx, []mount.Mount{{Type: "zfs", Source: tpl}}, func(root string) error {
			if write != "" {
				require.NoError(t, os.WriteFile(filepath.Join(root, write), nil, 0o644))
			}
			left, err := c.Destroy(ctx, "extracted", []string{tpl})
			var why *zfs.Error
			require.ErrorAs(t, left[tpl], &why)
			assert.ErrorIs(t, why, zfs.ErrBusy)
			snapshotLost = why.SnapshotLost
			return err
		})
		require.NoError(t, err)
		return snapshotLost
	}
	hasSnapshot := func() bool {
		return slices.ContainsFunc(base.List(t), func(d zfs.Dataset) bool { return d.Name == tpl && d.HasSnapshot("extracted") })
	}
	// Of one that was promoted ZFS can say that it was written into when it was only
	// mounted. What counts is that the result is true.
	lost := destroyBusy("")
	assert.Equal(t, lost, !hasSnapshot())
	t.Logf("mounted and not written into: lost its snapshot: %v", lost)
	if lost {
		require.NoError(t, c.Apply(ctx, zfs.Snapshot(tpl+"@extracted")))
	}
	assert.True(t, destroyBusy("written"))
	assert.False(t, hasSnapshot(), "the same one cannot be taken again")
	require.NoError(t, c.Apply(ctx, zfs.Snapshot(tpl+"@extracted")))
	zfsCommand(t, "create", "-o", "mountpoint=none", "-o",
		fmt.Sprintf("reservation=%d", available(t, base.String())-128<<10), p.Name+"/neighbour")
	assert.True(t, destroyBusy(""))
	assert.False(t, hasSnapshot())
	left, err = c.Destroy(ctx, "extracted", []string{tpl})
	require.NoError(t, err)
	assert.Empty(t, left)
}

// A foreign snapshot that is cloned or mounted stays.
func TestForeignSnapshotsInUseStay(t *testing.T) {
	eachClient(t, func(t *testing.T, base *testpool.Base) {
		ctx, c := context.Background(), base.Client
		tpl, run := runtimeOf(base, "tpl"), runtimeOf(base, "run")
		require.NoError(t, c.Apply(ctx, zfs.Clone(base.Empty().Snapshot(), tpl)))
		require.NoError(t, c.Apply(ctx, zfs.Snapshot(tpl+"@daily")))
		require.NoError(t, c.Apply(ctx, zfs.Snapshot(tpl+"@hourly"), zfs.Clone(tpl+"@hourly", run)))
		err := c.DestroyForeign(ctx, "extracted", tpl)
		require.ErrorContains(t, err, tpl+"@hourly")
		for _, d := range base.List(t) {
			if d.Name == tpl {
				assert.Equal(t, []string{"hourly"}, d.Snapshots, "the other one went")
			}
		}
		_, err = c.Destroy(ctx, "extracted", []string{run})
		require.NoError(t, err)
		left, err := c.Destroy(ctx, "hourly", []string{tpl})
		require.NoError(t, err)
		require.Empty(t, left)
	})
}

// Both clients see the same.
func TestClientsAgree(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	one := pool.NewBaseWith(t, zfs.Native)
	// The quota is what bounds the base, not the pool: what is available
	// there changes with every other test.
	zfsCommand(t, "set", "quota=64M", one.String())
	other, err := zfs.Open(ctx, pool.Name, "zfstpl:", zfs.Command)
	require.NoError(t, err)
	defer func() { require.NoError(t, other.Close()) }()
	run := runtimeOf(one, "a")
	value := strings.Repeat("x", zfs.MaxPropertyValue)
	require.NoError(t, one.Client.Apply(ctx, zfs.Clone(one.Empty().Snapshot(), run), zfs.Set(run, "zfstpl:test", value),
		zfs.Set(run, "other:thing", "y")))
	require.NoError(t, one.Client.Apply(ctx, zfs.Snapshot(run+"@one")))
	require.NoError(t, one.Client.Apply(ctx, zfs.Snapshot(run+"@two")))
	require.NoError(t, one.Client.Create(ctx, run+"/below", nil))
	require.NoError(t, one.Client.Create(ctx, run+"/below/further", map[string]string{"zfstpl:test": "t"}))
	sorted := func(c *zfs.Client) []zfs.Dataset {
		list, err := c.List(ctx, one.String())
		require.NoError(t, err)
		slices.SortFunc(list, func(a, b zfs.Dataset) int { return strings.Compare(a.Name, b.Name) })
		for i := range list {
			slices.Sort(list[i].Snapshots)
		}
		return list
	}
	assert.Equal(t, sorted(other), sorted(one.Client))
	for _, name := range []string{run, one.String(), one.Empty().Dataset()} {
		a, err := one.Client.Space(ctx, name)
		require.NoError(t, err)
		b, err := other.Space(ctx, name)
		require.NoError(t, err)
		assert.Equal(t, b, a, name)
	}
	for _, name := range []string{run + "/below/further", run + "/below"} {
		left, err := one.Client.Destroy(ctx, "x", []string{name})
		require.NoError(t, err)
		require.Empty(t, left)
	}
	require.NoError(t, one.Client.DestroyForeign(ctx, "extracted", run))
}

// A quota bounds what a clone adds, and bounds no other clone.
func TestQuotaBoundsOneCloneOnly(t *testing.T) {
	eachClient(t, func(t *testing.T, base *testpool.Base) {
		ctx, c := context.Background(), base.Client
		small, free := runtimeOf(base, "small"), runtimeOf(base, "free")
		require.NoError(t, c.Apply(ctx, zfs.Clone(base.Empty().Snapshot(), small), zfs.Quota(small, 2<<20), zfs.Set(small, "zfstpl:test", "x")))
		require.NoError(t, c.Apply(ctx, zfs.Clone(base.Empty().Snapshot(), free), zfs.Set(free, "zfstpl:test", "x")))
		assert.Equal(t, "x", propertiesOf(t, base, small)["zfstpl:test"])
		write := func(name string) error {
			return mount.WithTempMount(ctx, []mount.Mount{{Type: "zfs", Source: name}}, func(root string) error {
				return writeMegabytes(filepath.Join(root, "file"), 8)
			})
		}
		assert.ErrorIs(t, write(small), unix.EDQUOT)
		assert.NoError(t, write(free))
	})
}

// writeMegabytes writes what does not compress, and sees it onto the disk.
func writeMegabytes(path string, n int) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	buf := make([]byte, 1<<20)
	for range n {
		if _, err := rand.Read(buf); err != nil {
			return err
		}
		if _, err := file.Write(buf); err != nil {
			return err
		}
		// The quota is enforced by what is on the disk.
		if err := file.Sync(); err != nil {
			return err
		}
	}
	return nil
}
