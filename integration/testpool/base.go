package testpool

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/sys/mountinfo"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/inspect"
	"github.com/zfstpl/zfstpl/snapshotter/inspect/invariants"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/setup"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// Base is a base of a test's own.
type Base struct {
	layout.Base
	Root   string // where it is mounted
	Client *zfs.Client
	Choice zfs.Choice // what Client speaks to ZFS by, and a test's daemons should
	pool   *Pool
}

// NewBase is NewBaseWith for the client that the tests are to use.
func (p *Pool) NewBase(t testing.TB) *Base {
	t.Helper()
	return p.NewBaseWith(t, ClientChoice())
}

// NewBaseWith makes a base for t. When t ends, and everything t itself wanted done
// at its end is done, the invariants are asserted and the base is unmounted.
func (p *Pool) NewBaseWith(t testing.TB, choice zfs.Choice) *Base {
	t.Helper()
	ctx := context.Background()
	client, err := zfs.Open(ctx, p.Name, layout.PropertyPrefix, choice)
	require.NoError(t, err)
	id := layout.NewID().String()
	name, err := layout.ParseBase(p.Name + "/" + id)
	require.NoError(t, err)
	b := &Base{Base: name, Root: filepath.Join(p.Dir, id), Client: client, Choice: choice, pool: p}
	changed, err := setup.Init(ctx, client, name, b.Root, nil)
	require.NoError(t, err)
	require.True(t, changed)
	t.Cleanup(func() { b.close(t) })
	return b
}

// OpenBase is a base that another process has made and will take down. The caller
// closes its Client.
func (p *Pool) OpenBase(t testing.TB, id string) *Base {
	t.Helper()
	name, err := layout.ParseBase(p.Name + "/" + id)
	require.NoError(t, err)
	client, err := zfs.Open(context.Background(), p.Name, layout.PropertyPrefix, ClientChoice())
	require.NoError(t, err)
	return &Base{Base: name, Root: filepath.Join(p.Dir, id), Client: client, Choice: ClientChoice(), pool: p}
}

// List returns everything under the base, with the changes in its log.
func (b *Base) List(t testing.TB) []zfs.Dataset {
	t.Helper()
	root, err := os.OpenRoot(b.Root)
	require.NoError(t, err)
	defer root.Close()
	list, incomplete, err := inspect.Datasets(context.Background(), b.Client, b.Base, root, nil)
	require.NoError(t, err)
	require.NoError(t, incomplete)
	return list
}

// Inspect returns what the datasets under the base are.
func (b *Base) Inspect(t testing.TB) []inspect.Entry {
	t.Helper()
	root, err := os.OpenRoot(b.Root)
	require.NoError(t, err)
	defer root.Close()
	entries, incomplete, err := inspect.List(context.Background(), b.Client, b.Base, root, nil)
	require.NoError(t, err)
	require.NoError(t, incomplete)
	return entries
}

// Names are the datasets under the base, without the base's own name, and without runtimes that
// a daemon makes in advance at any time.
func (b *Base) Names(t testing.TB) []string {
	t.Helper()
	var names []string
	for _, d := range b.List(t) {
		if len(d.Props) > 0 || !b.IsReadyName(d.Name) {
			names = append(names, strings.TrimPrefix(d.Name, b.String()))
		}
	}
	slices.Sort(names)
	return names
}

// Check asserts the invariants: the records and datasets agree, and nothing
// under storage is mounted but read-only snapshots.
func (b *Base) Check(t testing.TB) {
	t.Helper()
	assert.NoError(t, invariants.Check(b.Base, b.List(t)), "the invariants of the pool")
	mounts, err := b.pool.Mounts(b.Storage())
	assert.NoError(t, err)
	assert.Empty(t, mounts, "nothing under storage is left mounted")
}

func (b *Base) close(t testing.TB) {
	t.Helper()
	b.Check(t)
	mounts, err := b.pool.Mounts(b.Runtime())
	assert.NoError(t, err)
	assert.Empty(t, mounts, "no runtime is left mounted")
	// The datasets go with the pool: one by one they take longer than the test.
	out, err := exec.Command("zfs", "unmount", b.String()).CombinedOutput()
	assert.NoError(t, err, "unmounting the test's base: %s", out)
	assert.NoError(t, b.Client.Close())
}

// MountDir returns a directory for held mounts, which are unmounted when t ends.
func (b *Base) MountDir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	t.Cleanup(func() { assert.NoError(t, Unmount(filepath.Join(dir, "socket"))) })
	return filepath.Join(dir, "mnt")
}

// Source returns the dataset or snapshot that a client's mount of a snapshot mounts:
// of a bind, what is mounted at its source.
func (b *Base) Source(t testing.TB, mounts []mount.Mount) string {
	t.Helper()
	require.Len(t, mounts, 1)
	if mounts[0].Type != "bind" {
		return mounts[0].Source
	}
	found, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(mounts[0].Source))
	require.NoError(t, err)
	require.Len(t, found, 1, "%s is a held mount", mounts[0].Source)
	return found[0].Source
}
