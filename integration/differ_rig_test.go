package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/zfstpl/zfstpl/integration/testpool"
	"github.com/zfstpl/zfstpl/snapshotter"
	"github.com/zfstpl/zfstpl/snapshotter/diff"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// differ is a snapshotter and a differ over it, with containerd's own content
// store and leases, all in this process.
type differ struct {
	*diff.Service
	// walking is the same differ where ZFS says nothing of what changed.
	walking  *diff.Service
	contents diff.Contents
	sn       *snapshotter.Snapshotter
	base     *testpool.Base
	ctx      context.Context
	serial   int
	asked    atomic.Int64 // how often it was asked for an object
}

func newDiffer(t testing.TB, base *testpool.Base) *differ {
	t.Helper()
	d := &differ{base: base, ctx: namespaces.WithNamespace(context.Background(), "test")}
	d.contents = newContents(t)
	d.open(t)
	t.Cleanup(func() {
		require.NoError(t, d.sn.Cleanup(context.Background()))
		require.NoError(t, d.sn.Close())
	})
	return d
}

func (d *differ) open(t testing.TB, settings ...func(*snapshotter.Config)) {
	t.Helper()
	config := snapshotter.Config{Base: d.base.Base, CacheKeep: snapshotter.KeepForever}
	for _, set := range settings {
		set(&config)
	}
	var err error
	d.sn, err = snapshotter.New(d.ctx, d.base.Client, config)
	require.NoError(t, err)
	d.Service = diff.New(d.base.Base, &telling{d.base.Client, t, d}, d.contents, d.sn)
	d.walking = diff.New(d.base.Base, blind{d.base.Client}, d.contents, d.sn)
}

// restart is the snapshotter's end and a new beginning.
func (d *differ) restart(t testing.TB) {
	t.Helper()
	require.NoError(t, d.sn.Close())
	d.open(t)
}

// telling is a pool that must list what changed, where it can.
type telling struct {
	diff.Pool
	t testing.TB
	d *differ
}

func (p *telling) ChangedObjects(ctx context.Context, from, to string) ([]zfs.ObjectRange, error) {
	list, err := p.Pool.ChangedObjects(ctx, from, to)
	if p.d.base.Choice != zfs.Command && !errors.Is(err, zfs.ErrInvalid) { // no ancestor
		assert.NoError(p.t, err)
	}
	return list, err
}

func (p *telling) Object(ctx context.Context, snapshot string, object uint64) (zfs.Object, error) {
	p.d.asked.Add(1)
	o, err := p.Pool.Object(ctx, snapshot, object)
	if !errors.Is(err, zfs.ErrNotFound) {
		assert.NoError(p.t, err)
	}
	return o, err
}

// blind is a pool that does not list which objects changed.
type blind struct{ diff.Pool }

func (blind) ChangedObjects(_ context.Context, _, to string) ([]zfs.ObjectRange, error) {
	return nil, &zfs.Error{Op: "diff", Dataset: to, Kind: zfs.ErrUnavailable}
}

func newContents(t testing.TB) diff.Contents {
	t.Helper()
	dir := t.TempDir()
	store, err := local.NewStore(filepath.Join(dir, "content"))
	require.NoError(t, err)
	db, err := bolt.Open(filepath.Join(dir, "meta.db"), 0o600, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	all := metadata.NewDB(db, store, nil)
	require.NoError(t, all.Init(context.Background()))
	return diff.Contents{Store: all.ContentStore(), Leases: metadata.NewLeaseManager(all)}
}

// prepare returns a new active snapshot.
func (d *differ) prepare(t testing.TB, parent string) (key string, mounts []mount.Mount) {
	t.Helper()
	d.serial++
	key = fmt.Sprintf("active-%d", d.serial)
	mounts, err := d.sn.Prepare(d.ctx, key, parent)
	require.NoError(t, err)
	return key, mounts
}

// template commits what fill makes on a parent, and returns its name.
func (d *differ) template(t testing.TB, parent string, fill func(root string)) string {
	t.Helper()
	key, mounts := d.prepare(t, parent)
	d.mounted(t, mounts, fill)
	name := "template-" + key
	require.NoError(t, d.sn.Commit(d.ctx, name, key))
	return name
}

// mounted calls fn with where mounts are mounted meanwhile.
func (d *differ) mounted(t testing.TB, mounts []mount.Mount, fn func(root string)) {
	t.Helper()
	require.NoError(t, mount.WithTempMount(d.ctx, mounts, func(root string) error { fn(root); return nil }))
}

// viewed returns the mounts of a template, to be read.
func (d *differ) viewed(t testing.TB, name string) []mount.Mount {
	t.Helper()
	d.serial++
	mounts, err := d.sn.View(d.ctx, fmt.Sprintf("view-%d", d.serial), name)
	require.NoError(t, err)
	return mounts
}

// layers returns what changed from lower to upper, by what ZFS says and by
// comparing everything, which must be the same bytes.
func (d *differ) layers(t testing.TB, lower, upper []mount.Mount) []byte {
	t.Helper()
	sides := diff.Sides{Upper: upper[0].Source}
	if len(lower) > 0 {
		sides.Lower = lower[0].Source
	}
	var fast, slow bytes.Buffer
	require.NoError(t, d.Layer(d.ctx, sides, &fast, nil))
	require.NoError(t, d.walking.Layer(d.ctx, sides, &slow, nil))
	require.True(t, bytes.Equal(fast.Bytes(), slow.Bytes()), "what ZFS says makes another layer than comparing everything:\n%q\n%q",
		tarNames(t, fast.Bytes()), tarNames(t, slow.Bytes()))
	return fast.Bytes()
}

// applied is parent with a layer on it, by containerd's own code.
func (d *differ) applied(t testing.TB, parent string, layer []byte, look func(root string)) {
	t.Helper()
	_, mounts := d.prepare(t, parent)
	d.mounted(t, mounts, func(root string) {
		_, err := archive.Apply(d.ctx, root, bytes.NewReader(layer))
		require.NoError(t, err)
		look(root)
	})
}

// blob reads what a descriptor stands for.
func (d *differ) blob(t testing.TB, desc ocispec.Descriptor) []byte {
	t.Helper()
	b, err := content.ReadBlob(d.ctx, d.contents.Store, desc)
	require.NoError(t, err)
	return b
}

// requireNothingUnderWay asserts that no upload and, but for so many that wait
// for their end, no lease is left.
func (d *differ) requireNothingUnderWay(t testing.TB, kept int) {
	t.Helper()
	uploads, err := d.contents.Store.ListStatuses(d.ctx)
	require.NoError(t, err)
	require.Empty(t, uploads, "uploads")
	list, err := d.contents.Leases.List(d.ctx)
	require.NoError(t, err)
	require.Len(t, list, kept, "leases")
	for _, lease := range list {
		require.NotEmpty(t, lease.Labels["containerd.io/gc.expire"], "lease %s ends by itself", lease.ID)
		resources, err := d.contents.Leases.ListResources(d.ctx, leases.Lease{ID: lease.ID})
		require.NoError(t, err)
		require.NotEmpty(t, resources)
	}
	for _, s := range d.base.List(t) {
		for _, short := range s.Snapshots {
			require.NotContains(t, short, zfs.TemporaryPrefix, s.Name)
		}
	}
}
