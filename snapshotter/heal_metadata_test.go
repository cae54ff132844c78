package snapshotter

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs/zfsfake"
)

// backend is the fixture's current snapshotter. It outlives restarts of the snapshotter.
type backend struct{ s *fixture }

func (b backend) Stat(ctx context.Context, key string) (snapshots.Info, error) {
	return b.s.sn.Stat(ctx, key)
}

func (b backend) Update(ctx context.Context, info snapshots.Info, fields ...string) (snapshots.Info, error) {
	return b.s.sn.Update(ctx, info, fields...)
}

func (b backend) Usage(ctx context.Context, key string) (snapshots.Usage, error) {
	return b.s.sn.Usage(ctx, key)
}

func (b backend) Mounts(ctx context.Context, key string) ([]mount.Mount, error) {
	return b.s.sn.Mounts(ctx, key)
}

func (b backend) Prepare(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	return b.s.sn.Prepare(ctx, key, parent, opts...)
}

func (b backend) View(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	return b.s.sn.View(ctx, key, parent, opts...)
}

func (b backend) Commit(ctx context.Context, name, key string, opts ...snapshots.Opt) error {
	return b.s.sn.Commit(ctx, name, key, opts...)
}

func (b backend) Remove(ctx context.Context, key string) error { return b.s.sn.Remove(ctx, key) }

func (b backend) Walk(ctx context.Context, fn snapshots.WalkFunc, filter ...string) error {
	return b.s.sn.Walk(ctx, fn, filter...)
}

func (b backend) Cleanup(ctx context.Context) error { return b.s.sn.Cleanup(ctx) }
func (b backend) Close() error                      { return nil }

// metadataStore is containerd's metadata store with its database.
type metadataStore struct {
	*fixture
	ctx context.Context
	db  *metadata.DB
	sn  snapshots.Snapshotter
}

// gcRoot protects a snapshot from containerd's garbage collection.
var gcRoot = label("containerd.io/gc.root", "image")

func (s *fixture) metadataStore() *metadataStore {
	s.Helper()
	file, err := bbolt.Open(filepath.Join(s.TempDir(), "meta.db"), 0o600, nil)
	require.NoError(s, err)
	s.Cleanup(func() { require.NoError(s, file.Close()) })
	db := metadata.NewDB(file, nil, map[string]snapshots.Snapshotter{"zfstpl": backend{s}})
	require.NoError(s, db.Init(s.ctx))
	return &metadataStore{fixture: s, ctx: namespaces.WithNamespace(s.ctx, "default"), db: db, sn: db.Snapshotter("zfstpl")}
}

// unpack unpacks one layer as containerd's unpacker does, and returns its chain ID.
func (m *metadataStore) unpack(parent, content string) (chain string, err error) {
	m.Helper()
	diffID := digest.FromString(content)
	chain = layout.ChainID(parent, diffID.String())
	m.n++
	key := fmt.Sprintf("extract-%d-abcd %s", m.n, chain)
	mounts, err := m.sn.Prepare(m.ctx, key, parent, ref(chain), gcRoot)
	if errdefs.IsAlreadyExists(err) {
		_, err := m.sn.Stat(m.ctx, chain)
		return chain, err
	}
	if err != nil {
		return "", err
	}
	m.pool.EditFS(mounts[0].Source, func(fs *zfsfake.FS) { fs.Content += content })
	m.fixture.sn.Fill(mounts[0].Source)(diffID, diffID)
	return chain, m.sn.Commit(m.ctx, chain, key, ref(chain), gcRoot)
}

// collect runs containerd's garbage collection. It removes a snapshot first, so that the
// collection includes the snapshotter.
func (m *metadataStore) collect() {
	m.Helper()
	require.NoError(m, second(m.sn.Prepare(m.ctx, "marks it as dirty", "")))
	require.NoError(m, m.sn.Remove(m.ctx, "marks it as dirty"))
	require.NoError(m, second(m.db.GarbageCollect(m.ctx)))
}

// walked returns the parents of all snapshots that containerd sees, by name.
func (m *metadataStore) walked() map[string]string {
	m.Helper()
	parents := make(map[string]string)
	require.NoError(m, m.sn.Walk(m.ctx, func(_ context.Context, info snapshots.Info) error {
		parents[info.Name] = info.Parent
		return nil
	}))
	return parents
}

// containerd's metadata store on a pool that lost records sees all snapshots, collects only
// garbage, and in the end leaves nothing.
func TestContainerdFindsRestoredRecords(t *testing.T) {
	t.Parallel()
	for what, lost := range map[string][]int{"lowest": {0}, "middle": {1}, "highest": {2}, "all": {0, 1, 2}} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := newFixture(t)
			m := s.metadataStore()
			chains := []string{""}
			for _, content := range []string{"a;", "b;", "c;"} {
				chain, err := m.unpack(chains[len(chains)-1], content)
				require.NoError(t, err)
				chains = append(chains, chain)
			}
			require.NoError(t, second(m.sn.Prepare(m.ctx, "runs", chains[2], gcRoot)))
			before, names := m.walked(), s.names()
			var missing []string
			for _, i := range lost {
				for _, name := range names {
					if chainIDOf(name) == chains[i+1] {
						missing = append(missing, name)
					}
				}
			}
			s.loseRecords(missing...)

			m.collect()
			assert.Equal(t, before, m.walked(), "a collection removes nothing, and the parents are those of containerd's database")
			assert.Equal(t, len(lost), s.restorations())
			assert.Equal(t, names, s.names())
			for _, chain := range chains[1:] {
				info, err := m.sn.Stat(m.ctx, chain)
				require.NoError(t, err)
				assert.Equal(t, chain, info.Labels[snapshots.LabelSnapshotRef], "the labels are those of containerd's database")
			}
			for i, content := range []string{"a;", "b;", "c;"} {
				require.NoError(t, second(m.unpack(chains[i], content)), "a pull finds the layers")
			}
			other, err := m.unpack(chains[2], "d;")
			require.NoError(t, err)
			s.restart()
			m.collect()
			require.NoError(t, second(m.sn.View(m.ctx, "looks", other, gcRoot)))
			s.requireInvariants()
			require.ErrorIs(t, m.sn.Remove(m.ctx, chains[2]), errdefs.ErrFailedPrecondition)

			for _, key := range []string{"looks", "runs", other, chains[3], chains[2], chains[1]} {
				require.NoError(t, m.sn.Remove(m.ctx, key))
				m.collect()
			}
			assert.Empty(t, s.names(), "all snapshots are collected")
			s.requireInvariants()
		})
	}
}

// A layer whose record cannot be restored is missing until containerd removes it from its
// database, as the error advises. Then a pull creates it again.
func TestPullRecreatesLayerThatCannotBeRestored(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	m := s.metadataStore()
	a, err := m.unpack("", "a;")
	require.NoError(t, err)
	b, err := m.unpack(a, "b;")
	require.NoError(t, err)
	lost := s.names()[1]
	require.Equal(t, b, chainIDOf(lost))
	s.setDiffID(lost, "")
	s.loseRecords(lost)

	for range 2 {
		require.ErrorIs(t, second(m.unpack(a, "b;")), errdefs.ErrNotFound, "a pull does not help")
		err := second(m.sn.Prepare(m.ctx, "runs", b))
		require.ErrorIs(t, err, errdefs.ErrNotFound)
		require.ErrorContains(t, err, "ctr images rm --sync")
		assert.NotContains(t, m.walked(), b, "a walk returns the others")
		assert.Contains(t, m.walked(), a)
		m.collect()
	}
	require.NoError(t, m.sn.Remove(m.ctx, b)) // as the collection does after the image was removed
	m.collect()
	b, err = m.unpack(a, "b;")
	require.NoError(t, err)
	require.NoError(t, second(m.sn.Prepare(m.ctx, "runs", b, gcRoot)))
	s.requireInvariants()
}

// A record that was restored for a name that containerd's database no longer has is removed
// by the next collection.
func TestContainerdCollectsUnknownRestoredRecord(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	m := s.metadataStore()
	a, err := m.unpack("", "a;")
	require.NoError(t, err)
	name := s.names()[0]
	require.NoError(t, m.sn.Remove(m.ctx, a))
	m.collect()
	require.Empty(t, s.names())

	s.stat(name)
	assert.Equal(t, 1, s.restorations())
	m.collect()
	assert.Empty(t, s.names())
	s.requireInvariants()
}
