package snapshotter

import (
	"context"
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/setup"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// refusing makes the n-th call that changes a pool fail, counted from 1.
func refusing(p *fakePool, n int) {
	calls := 0
	p.before = func(call string) error {
		if strings.HasPrefix(call, "destroy") || call == "list" {
			return nil
		}
		if calls++; calls == n {
			return fakeError(call, "tank/z", zfs.ErrNoSpace)
		}
		return nil
	}
}

// If any step fails, setup.Init leaves nothing of a new base, and the next call creates it.
func TestInitBaseLeavesAllOrNothing(t *testing.T) {
	t.Parallel()
	steps := []string{"base", "longname", "storage", "runtime", "empty", "snapshot", "mount"}
	for n := range steps {
		p := newFakePool(t)
		before := p.state.clone()
		refusing(p, n+1)
		_, err := setup.Init(t.Context(), p, testBase(t), "/srv", nil)
		require.ErrorIs(t, err, zfs.ErrNoSpace, steps[n])
		assert.NotContains(t, err.Error(), "\n")
		assert.Equal(t, before.fs, p.state.fs, steps[n])
		changed, err := setup.Init(t.Context(), p, testBase(t), "/srv", nil)
		require.NoError(t, err, steps[n])
		assert.True(t, changed)
	}
}

// If the completion of a base fails, setup.Init destroys only what it added.
func TestInitBaseKeepsWhatItDidNotCreate(t *testing.T) {
	t.Parallel()
	for n, step := range []string{"runtime", "snapshot", "mount"} {
		p, base := newFakePool(t), testBase(t)
		_, err := setup.Init(t.Context(), p, base, "/srv", nil)
		require.NoError(t, err)
		p.edit(func(s *fakeState) { delete(s.fs, "tank/z/runtime"); delete(s.mounted, "tank/z") })
		p.editFS("tank/z/storage/empty", func(fs *fakeFS) { delete(fs.snaps, layout.Extracted) })
		before := p.state.clone()
		refusing(p, n+1)
		_, err = setup.Init(t.Context(), p, base, "/srv", nil)
		require.ErrorIs(t, err, zfs.ErrNoSpace, step)
		assert.Equal(t, before.fs, p.state.fs, step)
	}
}

// setup.Init does not destroy a dataset that another process creates below the base meanwhile.
func TestInitBaseKeepsForeignDatasets(t *testing.T) {
	t.Parallel()
	p, base := newFakePool(t), testBase(t)
	p.after = func(call string) error {
		if call == "apply" {
			p.edit(func(s *fakeState) { s.create("tank/z/mine", nil) })
			return fakeError("snapshot", base.Empty().Snapshot(), zfs.ErrNoSpace)
		}
		return nil
	}
	_, err := setup.Init(t.Context(), p, base, "/srv", nil)
	require.ErrorIs(t, err, zfs.ErrNoSpace)
	assert.ErrorContains(t, err, "rollback of tank/z")
	assert.Contains(t, p.state.fs, "tank/z/mine")
	assert.NotContains(t, p.state.fs, "tank/z/storage")
}

// setup.Init stops between two steps when its context is cancelled and destroys what it
// created.
func TestInitBaseRollsBackWhenCancelled(t *testing.T) {
	t.Parallel()
	p := newFakePool(t)
	ctx, cancel := context.WithCancel(t.Context())
	p.after = func(call string) error {
		if call == "create" {
			cancel()
		}
		return nil
	}
	_, err := setup.Init(ctx, p, testBase(t), "/srv", nil)
	require.ErrorIs(t, err, context.Canceled)
	assert.NotContains(t, p.state.fs, "tank/z")
}

func TestInitBaseNamesTheKeyThatIsNotLoaded(t *testing.T) {
	t.Parallel()
	lock := func(p *fakePool, dataset string) {
		p.editFS(dataset, func(fs *fakeFS) {
			fs.native[setup.KeyStatus], fs.native[setup.EncryptionRoot] = "unavailable", "tank"
		})
	}
	p, base := newFakePool(t), testBase(t)
	_, err := setup.Init(t.Context(), p, base, "/srv", nil)
	require.NoError(t, err)
	lock(p, "tank/z")
	_, err = setup.Init(t.Context(), p, base, "/srv", nil)
	require.ErrorContains(t, err, "'zfs load-key tank'")

	p = newFakePool(t)
	lock(p, "tank")
	p.before = func(call string) error {
		if call == "create" {
			return errors.New("Required key not loaded")
		}
		return nil
	}
	_, err = setup.Init(t.Context(), p, base, "/srv", nil)
	require.ErrorContains(t, err, "'zfs load-key tank'")
}

// Below a zoned file system, ZFS creates none with a mountpoint. setup.Init sets it later.
func TestInitBaseWorksBelowAZonedDataset(t *testing.T) {
	t.Parallel()
	p := newFakePool(t)
	p.editFS("tank", func(fs *fakeFS) { fs.native["zoned"] = "on" })
	made := make(map[string]string)
	p.after = func(call string) error {
		if call == "create" && len(made) == 0 {
			maps.Copy(made, p.state.fs["tank/z"].native)
		}
		return nil
	}
	_, err := setup.Init(t.Context(), p, testBase(t), "/srv", nil)
	require.NoError(t, err)
	assert.NotContains(t, made, "mountpoint")
	assert.NotContains(t, made, "sharenfs")
	assert.Equal(t, "off", made["zoned"])
	native := p.state.fs["tank/z"].native
	assert.Equal(t, "/srv", native["mountpoint"])
	assert.Equal(t, "off", native["sharesmb"])
}
