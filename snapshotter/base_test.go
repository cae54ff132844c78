package snapshotter

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/inspect"
	"github.com/zfstpl/zfstpl/snapshotter/internal/record"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/setup"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
	"github.com/zfstpl/zfstpl/snapshotter/zfs/zfsfake"
)

func TestInitBaseCreatesABase(t *testing.T) {
	t.Parallel()
	p := zfsfake.New(t)
	base, err := layout.ParseBase("tank/z")
	require.NoError(t, err)
	changed, err := setup.Init(t.Context(), p, base, "/srv", map[string]string{"compression": "zstd"})
	require.NoError(t, err)
	assert.True(t, changed)
	fs := p.Now().FS["tank/z"]
	assert.Equal(t, "2", fs.Props[layout.VersionProperty])
	assert.Equal(t, "/srv", fs.Native["mountpoint"])
	assert.Equal(t, "zstd", fs.Native["compression"], "the administrator's value overrides")
	assert.Equal(t, "posix", fs.Native["acltype"])
	for _, child := range []string{"tank/z/storage", "tank/z/runtime"} {
		assert.Equal(t, map[string]string{"canmount": "off", "mountpoint": "legacy"}, p.Now().FS[child].Native, child)
	}
	assert.Empty(t, p.Now().FS["tank/z/storage/empty"].Native, "inherits all native properties")
	assert.Contains(t, p.Now().FS["tank/z/storage/empty"].Snaps, layout.Extracted)
	assert.True(t, p.Now().Mounted["tank/z"])

	before := p.Now()
	changed, err = setup.Init(t.Context(), p, base, "/elsewhere", nil)
	require.NoError(t, err)
	assert.False(t, changed)
	assert.Equal(t, before, p.Now(), "a second call changes nothing")
}

// After a crash during setup.Init, another call completes the base.
func TestInitBaseCompletesAfterCrash(t *testing.T) {
	t.Parallel()
	base, err := layout.ParseBase("tank/z")
	require.NoError(t, err)
	for cut := range zfsfake.Each(t, zfsfake.Before(zfsfake.Transaction)) {
		p := zfsfake.New(t)
		p.FailAt(cut.Point, zfsfake.Crash())
		_, err := setup.Init(t.Context(), p, base, "/srv", nil)
		if !cut.Reached() {
			require.NoError(t, err)
			continue
		}
		require.ErrorIs(t, err, zfsfake.ErrCrashed, "%s", cut)
		p = p.AfterCrash()
		changed, err := setup.Init(t.Context(), p, base, "/srv", nil)
		require.NoError(t, err)
		assert.True(t, changed)
		sn, err := New(t.Context(), p, Config{Base: base})
		require.NoError(t, err)
		require.NoError(t, sn.Close())
	}
}

// setup.Init does not change a foreign dataset or a base with another layout version.
func TestInitBaseRefusesForeignDatasets(t *testing.T) {
	t.Parallel()
	base, err := layout.ParseBase("tank/z")
	require.NoError(t, err)
	for props, says := range map[string]string{"": "choose a dataset that does not exist yet", "99": "newer zfstpl", "0": "the release of zfstpl that made it"} {
		p := zfsfake.New(t)
		require.NoError(t, p.Create(t.Context(), "tank/z", map[string]string{layout.VersionProperty: props}))
		before := p.Now()
		_, err := setup.Init(t.Context(), p, base, "/srv", nil)
		require.ErrorContains(t, err, says)
		assert.Equal(t, before, p.Now())
	}
	p := zfsfake.New(t)
	p.FailAt(zfsfake.Before(zfsfake.Call), zfsfake.Refuse(zfs.ErrPermission))
	_, err = setup.Init(t.Context(), p, base, "/srv", nil)
	assert.ErrorIs(t, err, zfs.ErrPermission)
	deep, err := layout.ParseBase("tank/no/such/z")
	require.NoError(t, err)
	_, err = setup.Init(t.Context(), zfsfake.New(t), deep, "/srv", nil)
	assert.ErrorIs(t, err, zfs.ErrNotFound, "the parent dataset does not exist")
}

func TestInspectReportsStates(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	a, _ := s.pull("default", "", chain("a"), "a;")
	b, _ := s.pull("default", a, chain("b"), "b;")
	s.layer("saved", a, "s;")
	s.layer("gone", a, "")
	opaque := s.templateOf("gone")
	s.prepare("web", a, label("x", "y"))
	s.cleanup()
	s.remove(b, "gone")
	s.prepare("garbage", "")
	garbage := s.dataset("garbage")
	s.remove("garbage")
	s.flush()
	require.NoError(t, s.pool.Create(s.ctx, "tank/z/mine", nil))
	require.NoError(t, s.pool.Create(s.ctx, "tank/z/storage/"+chain("c"), nil))
	s.pool.EditFS(s.templateOf("saved"), set(record.Property+testID("9"), "what"))

	entries, err := s.inspect()
	require.NoError(t, err)
	got := make(map[string]inspect.Entry)
	for _, e := range entries {
		got[e.Dataset] = e
	}
	layer := func(digit string) string { return "tank/z/storage/" + chain(digit) }
	for dataset, state := range map[string]inspect.State{
		"tank/z/storage/empty": inspect.Used, layer("a"): inspect.Used, layer("b"): inspect.Cached, layer("c"): inspect.Partial,
		opaque: inspect.Garbage, s.templateOf("saved"): inspect.Used, s.dataset("web"): inspect.Used, garbage: inspect.Garbage, "tank/z/mine": inspect.Foreign,
	} {
		assert.Equal(t, state, got[dataset].State, dataset)
		delete(got, dataset)
	}
	assert.Empty(t, got, "nothing else")
	for _, e := range entries {
		switch e.Dataset {
		case s.dataset("web"):
			assert.Equal(t, layer("a"), e.Parent)
			require.Len(t, e.Records, 1)
			assert.Equal(t, "web", e.Records[0].Name)
			assert.Equal(t, map[string]string{"x": "y"}, e.Records[0].Labels)
			assert.Equal(t, snapshots.KindActive, e.Records[0].Kind)
		case s.templateOf("saved"):
			assert.Contains(t, e.Problem, testID("9"))
			assert.Len(t, e.Records, 1, "the readable record is shown")
		case layer("b"):
			assert.WithinDuration(t, time.Now(), e.Since, time.Minute)
		}
	}
}

func TestInspectRefusesMissingAndForeignBases(t *testing.T) {
	t.Parallel()
	base, err := layout.ParseBase("tank/z")
	require.NoError(t, err)
	p := zfsfake.New(t)
	_, _, err = inspect.List(t.Context(), p, base, nil, nil)
	require.ErrorContains(t, err, "zfstpl init tank/z")
	require.ErrorIs(t, err, zfs.ErrNotFound)
	require.NoError(t, p.Create(t.Context(), "tank/z", nil))
	_, _, err = inspect.List(t.Context(), p, base, nil, nil)
	require.ErrorContains(t, err, "not a zfstpl base")
}

func TestUsageIsThatOfTheSnapshotAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, usageIsThatOfTheSnapshotAlone)
}

func usageIsThatOfTheSnapshotAlone(t *testing.T) {
	s, _ := newHeldFixture(t)
	s.layer("base", "", "one;two;")
	s.prepare("web", "base")
	s.write("web", "three;")
	s.view("look", "base")
	for name, want := range map[string]snapshots.Usage{"base": {Size: 8, Inodes: 2}, "web": {Size: 6, Inodes: 1}, "look": {}} {
		got, err := s.sn.Usage(s.ctx, name)
		require.NoError(t, err)
		assert.Equal(t, want, got, name)
	}
	// A container that deletes files has fewer objects than its image. Its usage is 0,
	// because containerd converts the value to unsigned.
	s.pool.EditFS(s.dataset("web"), func(fs *zfsfake.FS) { fs.Content = "" })
	got, err := s.sn.Usage(s.ctx, "web")
	require.NoError(t, err)
	assert.Equal(t, int64(6), got.Size, "from memory while it is fresh")
	time.Sleep(usageMaxAge)
	got, err = s.sn.Usage(s.ctx, "web")
	require.NoError(t, err)
	assert.Equal(t, snapshots.Usage{}, got)

	// A template never changes: it is measured once.
	calls := s.pool.Count(zfsfake.Before(zfsfake.Call))
	_, err = s.sn.Usage(s.ctx, "base")
	require.NoError(t, err)
	assert.Zero(t, calls())

	time.Sleep(countMaxAge)
	for _, kind := range []zfsfake.Kind{zfsfake.Written, zfsfake.Objects} {
		end := s.pool.FailAt(zfsfake.Before(kind), zfsfake.Refuse(zfs.ErrSuspended))
		_, err = s.sn.Usage(s.ctx, "web")
		assert.ErrorIs(t, err, errdefs.ErrUnavailable, kind)
		end()
	}
	// It is removed while it is measured.
	s.pool.FailAt(zfsfake.Before(zfsfake.Written), zfsfake.Do(func() error {
		s.remove("web")
		return zfsfake.Error("written", "x", zfs.ErrNotFound)
	}), zfsfake.Once())
	_, err = s.sn.Usage(s.ctx, "web")
	assert.ErrorIs(t, err, errdefs.ErrNotFound)
}

// The kubelet asks for the usage of all containers every ten seconds. Usage counts the
// objects of a snapshot again only after a change or when the count is old.
func TestUsageCountsObjectsOnlyAfterChanges(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, _ := newHeldFixture(t)
		s.layer("base", "", "one;")
		s.prepare("web", "base")
		counted := s.pool.Count(zfsfake.Before(zfsfake.Objects))
		usage := func(want snapshots.Usage, counts int) {
			t.Helper()
			got, err := s.sn.Usage(s.ctx, "web")
			require.NoError(t, err)
			assert.Equal(t, want, got)
			assert.Equal(t, counts, counted())
		}
		usage(snapshots.Usage{}, 0) // a new clone has the objects of its origin
		s.write("web", "two;")
		usage(snapshots.Usage{}, 0) // the last value is still fresh
		time.Sleep(usageMaxAge)
		usage(snapshots.Usage{Size: 4, Inodes: 1}, 2) // the snapshot and, once, its parent
		time.Sleep(usageMaxAge)
		usage(snapshots.Usage{Size: 4, Inodes: 1}, 2)
		s.pool.EditFS(s.dataset("web"), func(fs *zfsfake.FS) { fs.Content = "one;a;b;" }) // as many bytes
		time.Sleep(countMaxAge)
		usage(snapshots.Usage{Size: 4, Inodes: 2}, 3)
	})
}
