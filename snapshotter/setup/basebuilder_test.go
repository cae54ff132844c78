package setup

import (
	"context"
	"errors"
	"maps"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
	"github.com/zfstpl/zfstpl/snapshotter/zfs/zfsfake"
)

// changes are the points at which Init changes a pool.
var changes = zfsfake.Before(zfsfake.Create, zfsfake.SetNative, zfsfake.Apply, zfsfake.Mount)

// If any step fails, setup.Init leaves nothing of a new base, and the next call creates it.
func TestInitLeavesAllOrNothing(t *testing.T) {
	t.Parallel()
	for cut := range zfsfake.Each(t, changes) {
		p := zfsfake.New(t)
		before := p.Now()
		p.FailAt(cut.Point, zfsfake.Refuse(zfs.ErrNoSpace))
		_, err := Init(t.Context(), p, testBase(t), "/srv", nil)
		if !cut.Reached() {
			require.NoError(t, err)
			continue
		}
		require.ErrorIs(t, err, zfs.ErrNoSpace, "%s", cut)
		assert.NotContains(t, err.Error(), "\n")
		assert.Equal(t, before.FS, p.Now().FS, "%s", cut)
		changed, err := Init(t.Context(), p, testBase(t), "/srv", nil)
		require.NoError(t, err, "%s", cut)
		assert.True(t, changed)
	}
}

// If the completion of a base fails, setup.Init destroys only what it added.
func TestInitKeepsWhatItDidNotCreate(t *testing.T) {
	t.Parallel()
	for cut := range zfsfake.Each(t, changes) {
		p, base := zfsfake.New(t), testBase(t)
		_, err := Init(t.Context(), p, base, "/srv", nil)
		require.NoError(t, err)
		p.Edit(func(s *zfsfake.State) { delete(s.FS, "tank/z/runtime"); delete(s.Mounted, "tank/z") })
		p.EditFS("tank/z/storage/empty", func(fs *zfsfake.FS) { delete(fs.Snaps, layout.Extracted) })
		before := p.Now()
		p.FailAt(cut.Point, zfsfake.Refuse(zfs.ErrNoSpace))
		_, err = Init(t.Context(), p, base, "/srv", nil)
		if !cut.Reached() {
			require.NoError(t, err)
			continue
		}
		require.ErrorIs(t, err, zfs.ErrNoSpace, "%s", cut)
		assert.Equal(t, before.FS, p.Now().FS, "%s", cut)
	}
}

// setup.Init does not destroy a dataset that another process creates below the base meanwhile.
func TestInitKeepsForeignDatasets(t *testing.T) {
	t.Parallel()
	p, base := zfsfake.New(t), testBase(t)
	p.FailAt(zfsfake.After(zfsfake.Apply), zfsfake.Do(func() error {
		p.Edit(func(s *zfsfake.State) { s.Create("tank/z/mine", nil) })
		return zfsfake.Error("snapshot", base.Empty().Snapshot(), zfs.ErrNoSpace)
	}))
	_, err := Init(t.Context(), p, base, "/srv", nil)
	require.ErrorIs(t, err, zfs.ErrNoSpace)
	assert.ErrorContains(t, err, "rollback of tank/z")
	assert.Contains(t, p.Now().FS, "tank/z/mine")
	assert.NotContains(t, p.Now().FS, "tank/z/storage")
}

// setup.Init stops between two steps when its context is cancelled and destroys what it
// created.
func TestInitRollsBackWhenCancelled(t *testing.T) {
	t.Parallel()
	p := zfsfake.New(t)
	ctx, cancel := context.WithCancel(t.Context())
	p.FailAt(zfsfake.After(zfsfake.Create), zfsfake.Do(func() error { cancel(); return nil }))
	_, err := Init(ctx, p, testBase(t), "/srv", nil)
	require.ErrorIs(t, err, context.Canceled)
	assert.NotContains(t, p.Now().FS, "tank/z")
}

func TestInitNamesTheKeyThatIsNotLoaded(t *testing.T) {
	t.Parallel()
	lock := func(p *zfsfake.Pool, dataset string) {
		p.EditFS(dataset, func(fs *zfsfake.FS) {
			fs.Native[KeyStatus], fs.Native[EncryptionRoot] = "unavailable", "tank"
		})
	}
	p, base := zfsfake.New(t), testBase(t)
	_, err := Init(t.Context(), p, base, "/srv", nil)
	require.NoError(t, err)
	lock(p, "tank/z")
	_, err = Init(t.Context(), p, base, "/srv", nil)
	require.ErrorContains(t, err, "'zfs load-key tank'")

	p = zfsfake.New(t)
	lock(p, "tank")
	p.FailAt(zfsfake.Before(zfsfake.Create), zfsfake.Return(errors.New("Required key not loaded")))
	_, err = Init(t.Context(), p, base, "/srv", nil)
	require.ErrorContains(t, err, "'zfs load-key tank'")
}

// Below a zoned file system, ZFS creates none with a mountpoint. setup.Init sets it later.
func TestInitWorksBelowAZonedDataset(t *testing.T) {
	t.Parallel()
	p := zfsfake.New(t)
	p.EditFS("tank", func(fs *zfsfake.FS) { fs.Native["zoned"] = "on" })
	made := make(map[string]string)
	p.FailAt(zfsfake.After(zfsfake.Create).Of("tank/z"), zfsfake.Do(func() error {
		maps.Copy(made, p.Now().FS["tank/z"].Native)
		return nil
	}))
	_, err := Init(t.Context(), p, testBase(t), "/srv", nil)
	require.NoError(t, err)
	assert.NotContains(t, made, "mountpoint")
	assert.NotContains(t, made, "sharenfs")
	assert.Equal(t, "off", made["zoned"])
	native := p.Now().FS["tank/z"].Native
	assert.Equal(t, "/srv", native["mountpoint"])
	assert.Equal(t, "off", native["sharesmb"])
}
