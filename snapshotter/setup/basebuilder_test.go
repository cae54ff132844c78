package setup

import (
	"context"
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
	"github.com/zfstpl/zfstpl/snapshotter/zfs/zfsfake"
)

// refusing makes the n-th call that changes a pool fail, counted from 1.
func refusing(p *zfsfake.Pool, n int) {
	calls := 0
	p.Before = func(call string) error {
		if strings.HasPrefix(call, "destroy") || call == "list" {
			return nil
		}
		if calls++; calls == n {
			return zfsfake.Error(call, "tank/z", zfs.ErrNoSpace)
		}
		return nil
	}
}

// If any step fails, setup.Init leaves nothing of a new base, and the next call creates it.
func TestInitLeavesAllOrNothing(t *testing.T) {
	t.Parallel()
	steps := []string{"base", "longname", "storage", "runtime", "empty", "snapshot", "mount"}
	for n := range steps {
		p := zfsfake.New(t)
		before := p.Current.Clone()
		refusing(p, n+1)
		_, err := Init(t.Context(), p, testBase(t), "/srv", nil)
		require.ErrorIs(t, err, zfs.ErrNoSpace, steps[n])
		assert.NotContains(t, err.Error(), "\n")
		assert.Equal(t, before.FS, p.Current.FS, steps[n])
		changed, err := Init(t.Context(), p, testBase(t), "/srv", nil)
		require.NoError(t, err, steps[n])
		assert.True(t, changed)
	}
}

// If the completion of a base fails, setup.Init destroys only what it added.
func TestInitKeepsWhatItDidNotCreate(t *testing.T) {
	t.Parallel()
	for n, step := range []string{"runtime", "snapshot", "mount"} {
		p, base := zfsfake.New(t), testBase(t)
		_, err := Init(t.Context(), p, base, "/srv", nil)
		require.NoError(t, err)
		p.Edit(func(s *zfsfake.State) { delete(s.FS, "tank/z/runtime"); delete(s.Mounted, "tank/z") })
		p.EditFS("tank/z/storage/empty", func(fs *zfsfake.FS) { delete(fs.Snaps, layout.Extracted) })
		before := p.Current.Clone()
		refusing(p, n+1)
		_, err = Init(t.Context(), p, base, "/srv", nil)
		require.ErrorIs(t, err, zfs.ErrNoSpace, step)
		assert.Equal(t, before.FS, p.Current.FS, step)
	}
}

// setup.Init does not destroy a dataset that another process creates below the base meanwhile.
func TestInitKeepsForeignDatasets(t *testing.T) {
	t.Parallel()
	p, base := zfsfake.New(t), testBase(t)
	p.After = func(call string) error {
		if call == "apply" {
			p.Edit(func(s *zfsfake.State) { s.Create("tank/z/mine", nil) })
			return zfsfake.Error("snapshot", base.Empty().Snapshot(), zfs.ErrNoSpace)
		}
		return nil
	}
	_, err := Init(t.Context(), p, base, "/srv", nil)
	require.ErrorIs(t, err, zfs.ErrNoSpace)
	assert.ErrorContains(t, err, "rollback of tank/z")
	assert.Contains(t, p.Current.FS, "tank/z/mine")
	assert.NotContains(t, p.Current.FS, "tank/z/storage")
}

// setup.Init stops between two steps when its context is cancelled and destroys what it
// created.
func TestInitRollsBackWhenCancelled(t *testing.T) {
	t.Parallel()
	p := zfsfake.New(t)
	ctx, cancel := context.WithCancel(t.Context())
	p.After = func(call string) error {
		if call == "create" {
			cancel()
		}
		return nil
	}
	_, err := Init(ctx, p, testBase(t), "/srv", nil)
	require.ErrorIs(t, err, context.Canceled)
	assert.NotContains(t, p.Current.FS, "tank/z")
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
	p.Before = func(call string) error {
		if call == "create" {
			return errors.New("Required key not loaded")
		}
		return nil
	}
	_, err = Init(t.Context(), p, base, "/srv", nil)
	require.ErrorContains(t, err, "'zfs load-key tank'")
}

// Below a zoned file system, ZFS creates none with a mountpoint. setup.Init sets it later.
func TestInitWorksBelowAZonedDataset(t *testing.T) {
	t.Parallel()
	p := zfsfake.New(t)
	p.EditFS("tank", func(fs *zfsfake.FS) { fs.Native["zoned"] = "on" })
	made := make(map[string]string)
	p.After = func(call string) error {
		if call == "create" && len(made) == 0 {
			maps.Copy(made, p.Current.FS["tank/z"].Native)
		}
		return nil
	}
	_, err := Init(t.Context(), p, testBase(t), "/srv", nil)
	require.NoError(t, err)
	assert.NotContains(t, made, "mountpoint")
	assert.NotContains(t, made, "sharenfs")
	assert.Equal(t, "off", made["zoned"])
	native := p.Current.FS["tank/z"].Native
	assert.Equal(t, "/srv", native["mountpoint"])
	assert.Equal(t, "off", native["sharesmb"])
}
