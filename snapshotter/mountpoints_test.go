package snapshotter

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/setup"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// 'zfs inherit -r mountpoint' removes mountpoint=legacy from storage and runtime. setup.Fix
// sets it again.
func TestFixBaseRestoresLostProperties(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	require.NoError(t, s.sn.Close())
	s.pool.editFS("tank/z/storage", func(fs *fakeFS) { fs.native = map[string]string{"mountpoint": "/tank/z/storage"} })
	s.pool.editFS("tank/z/runtime", func(fs *fakeFS) { fs.native["mountpoint"] = "/tank/z/runtime" })
	state, err := setup.Fix(s.ctx, s.pool, s.base)
	require.NoError(t, err)
	assert.Equal(t, "/tank/z/runtime", state.RuntimeMountpoint)
	for _, child := range []string{"tank/z/storage", "tank/z/runtime"} {
		assert.Equal(t, map[string]string{"canmount": "off", "mountpoint": "legacy"}, s.pool.state.fs[child].native, child)
	}
	assert.Contains(t, s.log.String(), "reset mount properties of dataset")
	state, err = setup.Fix(s.ctx, s.pool, s.base)
	require.NoError(t, err)
	assert.Empty(t, state.RuntimeMountpoint)

	s.pool.editFS("tank/z/runtime", func(fs *fakeFS) { fs.native["canmount"] = "on" })
	s.pool.before = func(call string) error {
		if call == "setnative" {
			return fakeError("set", "tank/z/runtime", zfs.ErrBusy)
		}
		return nil
	}
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
		s.pool.editFS(name, func(fs *fakeFS) { fs.native["mountpoint"] = "/somewhere" })
	}
	s.start()
	for _, name := range []string{template, runtime} {
		assert.Equal(t, "legacy", s.pool.state.fs[name].native["mountpoint"])
	}
	assert.Equal(t, "/mine", s.pool.state.fs["tank/z/mine"].native["mountpoint"], "foreign datasets are not changed")
}
