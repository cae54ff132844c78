package snapshotter

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/setup"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
	"github.com/zfstpl/zfstpl/snapshotter/zfs/zfsfake"
)

// 'zfs inherit -r mountpoint' removes mountpoint=legacy from storage and runtime. setup.Fix
// sets it again.
func TestFixBaseRestoresLostProperties(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	require.NoError(t, s.sn.Close())
	s.pool.EditFS("tank/z/storage", func(fs *zfsfake.FS) { fs.Native = map[string]string{"mountpoint": "/tank/z/storage"} })
	s.pool.EditFS("tank/z/runtime", func(fs *zfsfake.FS) { fs.Native["mountpoint"] = "/tank/z/runtime" })
	state, err := setup.Fix(s.ctx, s.pool, s.base)
	require.NoError(t, err)
	assert.Equal(t, "/tank/z/runtime", state.RuntimeMountpoint)
	for _, child := range []string{"tank/z/storage", "tank/z/runtime"} {
		assert.Equal(t, map[string]string{"canmount": "off", "mountpoint": "legacy"}, s.pool.Now().FS[child].Native, child)
	}
	assert.Contains(t, s.log.String(), "reset mount properties of dataset")
	state, err = setup.Fix(s.ctx, s.pool, s.base)
	require.NoError(t, err)
	assert.Empty(t, state.RuntimeMountpoint)

	s.pool.EditFS("tank/z/runtime", func(fs *zfsfake.FS) { fs.Native["canmount"] = "on" })
	s.pool.FailAt(zfsfake.Before(zfsfake.SetNative).Of("tank/z/runtime"), zfsfake.Refuse(zfs.ErrBusy))
	_, err = setup.Fix(s.ctx, s.pool, s.base)
	require.NoError(t, err, "a start does not fail for that")
	assert.Contains(t, s.log.String(), "zfs set canmount=off mountpoint=legacy tank/z/runtime")
}

func TestMountpointsOfDatasetsAreReset(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	a, _ := s.pull("default", "", chain("a"), "a;")
	s.prepare("web", a)
	template, runtime := s.templateOf(a), s.dataset("web")
	require.NoError(t, s.sn.Close())
	require.NoError(t, s.pool.Create(s.ctx, "tank/z/mine", map[string]string{"mountpoint": "/mine"}))
	for _, name := range []string{template, runtime} {
		s.pool.EditFS(name, func(fs *zfsfake.FS) { fs.Native["mountpoint"] = "/somewhere" })
	}
	s.start()
	for _, name := range []string{template, runtime} {
		assert.Equal(t, "legacy", s.pool.Now().FS[name].Native["mountpoint"])
	}
	assert.Equal(t, "/mine", s.pool.Now().FS["tank/z/mine"].Native["mountpoint"], "foreign datasets are not changed")
}
