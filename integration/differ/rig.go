package differ

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

	"github.com/zfstpl/zfstpl/integration/harness"
	"github.com/zfstpl/zfstpl/integration/testpool"
	"github.com/zfstpl/zfstpl/snapshotter"
	"github.com/zfstpl/zfstpl/snapshotter/diff"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// Rig is a snapshotter and a differ over it, with containerd's content store and leases.
type Rig struct {
	*diff.Service
	// byWalk is the same differ on a pool that does not list what changed.
	byWalk      *diff.Service
	Contents    diff.Contents
	Snapshotter *snapshotter.Snapshotter
	Base        *testpool.Base
	Context     context.Context
	Serial      int          // makes keys unique
	Asked       atomic.Int64 // how often the pool was asked for an object
}

// New returns a rig on base, which is closed when t ends.
func New(t testing.TB, base *testpool.Base) *Rig {
	t.Helper()
	d := &Rig{Base: base, Context: namespaces.WithNamespace(context.Background(), "test")}
	d.Contents = NewContents(t)
	d.Open(t)
	t.Cleanup(func() {
		require.NoError(t, d.Snapshotter.Cleanup(context.Background()))
		require.NoError(t, d.Snapshotter.Close())
	})
	return d
}

// Open creates the snapshotter and the differ.
func (d *Rig) Open(t testing.TB, settings ...func(*snapshotter.Config)) {
	t.Helper()
	config := snapshotter.Config{Base: d.Base.Base, CacheKeep: snapshotter.KeepForever}
	for _, set := range settings {
		set(&config)
	}
	var err error
	d.Snapshotter, err = snapshotter.New(d.Context, d.Base.Client, config)
	require.NoError(t, err)
	d.Service = diff.New(d.Base.Base, &strictPool{d.Base.Client, t, d}, d.Contents, d.Snapshotter)
	d.byWalk = diff.New(d.Base.Base, poolWithoutChanges{d.Base.Client}, d.Contents, d.Snapshotter)
}

// Restart closes the snapshotter and opens it again.
func (d *Rig) Restart(t testing.TB) {
	t.Helper()
	require.NoError(t, d.Snapshotter.Close())
	d.Open(t)
}

// strictPool is a pool that fails the test if it cannot list what changed although its client
// can.
type strictPool struct {
	diff.Pool
	t testing.TB
	d *Rig
}

func (p *strictPool) ChangedObjects(ctx context.Context, from, to string) ([]zfs.ObjectRange, error) {
	list, err := p.Pool.ChangedObjects(ctx, from, to)
	if p.d.Base.Choice != zfs.Command && !errors.Is(err, zfs.ErrInvalid) { // no ancestor
		assert.NoError(p.t, err)
	}
	return list, err
}

func (p *strictPool) Object(ctx context.Context, snapshot string, object uint64) (zfs.Object, error) {
	p.d.Asked.Add(1)
	o, err := p.Pool.Object(ctx, snapshot, object)
	if !errors.Is(err, zfs.ErrNotFound) {
		assert.NoError(p.t, err)
	}
	return o, err
}

// poolWithoutChanges is a pool that does not list which objects changed.
type poolWithoutChanges struct{ diff.Pool }

func (poolWithoutChanges) ChangedObjects(_ context.Context, _, to string) ([]zfs.ObjectRange, error) {
	return nil, &zfs.Error{Op: "diff", Dataset: to, Kind: zfs.ErrUnavailable}
}

// NewContents returns containerd's content store and leases, in a temporary directory.
func NewContents(t testing.TB) diff.Contents {
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

// Prepare returns a new active snapshot.
func (d *Rig) Prepare(t testing.TB, parent string) (key string, mounts []mount.Mount) {
	t.Helper()
	d.Serial++
	key = fmt.Sprintf("active-%d", d.Serial)
	mounts, err := d.Snapshotter.Prepare(d.Context, key, parent)
	require.NoError(t, err)
	return key, mounts
}

// Template commits what fill writes on a parent, and returns its name.
func (d *Rig) Template(t testing.TB, parent string, fill func(root string)) string {
	t.Helper()
	key, mounts := d.Prepare(t, parent)
	harness.Mounted(t, mounts, fill)
	name := "template-" + key
	require.NoError(t, d.Snapshotter.Commit(d.Context, name, key))
	return name
}

// View returns the mounts of a new view of a template.
func (d *Rig) View(t testing.TB, name string) []mount.Mount {
	t.Helper()
	d.Serial++
	mounts, err := d.Snapshotter.View(d.Context, fmt.Sprintf("view-%d", d.Serial), name)
	require.NoError(t, err)
	return mounts
}

// Layers returns the layer of what changed from lower to upper. It asserts that the changed
// objects that ZFS lists and a comparison of everything make the same layer.
func (d *Rig) Layers(t testing.TB, lower, upper []mount.Mount) []byte {
	t.Helper()
	sides := diff.Sides{Upper: upper[0].Source}
	if len(lower) > 0 {
		sides.Lower = lower[0].Source
	}
	var fast, slow bytes.Buffer
	require.NoError(t, d.Layer(d.Context, sides, &fast, nil))
	require.NoError(t, d.byWalk.Layer(d.Context, sides, &slow, nil))
	require.True(t, bytes.Equal(fast.Bytes(), slow.Bytes()), "what ZFS says makes another layer than comparing everything:\n%q\n%q",
		TarNames(t, fast.Bytes()), TarNames(t, slow.Bytes()))
	return fast.Bytes()
}

// Applied applies a layer to a snapshot of parent with containerd's own code, and calls look
// with its directory.
func (d *Rig) Applied(t testing.TB, parent string, layer []byte, look func(root string)) {
	t.Helper()
	_, mounts := d.Prepare(t, parent)
	harness.Mounted(t, mounts, func(root string) {
		_, err := archive.Apply(d.Context, root, bytes.NewReader(layer))
		require.NoError(t, err)
		look(root)
	})
}

// Blob reads the content of a descriptor.
func (d *Rig) Blob(t testing.TB, desc ocispec.Descriptor) []byte {
	t.Helper()
	b, err := content.ReadBlob(d.Context, d.Contents.Store, desc)
	require.NoError(t, err)
	return b
}

// RequireNothingPending asserts that no upload, no snapshot of a comparison and only kept
// leases are left, which expire.
func (d *Rig) RequireNothingPending(t testing.TB, kept int) {
	t.Helper()
	uploads, err := d.Contents.Store.ListStatuses(d.Context)
	require.NoError(t, err)
	require.Empty(t, uploads, "uploads")
	list, err := d.Contents.Leases.List(d.Context)
	require.NoError(t, err)
	require.Len(t, list, kept, "leases")
	for _, lease := range list {
		require.NotEmpty(t, lease.Labels["containerd.io/gc.expire"], "lease %s ends by itself", lease.ID)
		resources, err := d.Contents.Leases.ListResources(d.Context, leases.Lease{ID: lease.ID})
		require.NoError(t, err)
		require.NotEmpty(t, resources)
	}
	for _, s := range d.Base.List(t) {
		for _, short := range s.Snapshots {
			require.NotContains(t, short, zfs.TemporaryPrefix, s.Name)
		}
	}
}
