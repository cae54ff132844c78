package snapshotter

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// kept tells whether the template of a snapshot is kept mounted, once all that
// goes on in the background has come to rest.
func (s *story) kept(template string) bool {
	synctest.Wait()
	n := 0
	s.pool.edit(func(state *fakeState) { n = state.attached[template+"@extracted"] })
	assert.LessOrEqual(s, n, 1, "one mount is enough")
	return n == 1
}

// One View may be unmounted while another one of the same template is mounted:
// ZFS has no trouble with that as long as some mount stays.
func TestTemplatesOfViewsStayMounted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := begin(t, keepWarm(time.Hour))
		s.layer("base", "", "b;")
		base := s.templateOf("base")
		assert.False(t, s.kept(base))
		s.view("one", "base")
		s.view("two", "base")
		assert.True(t, s.kept(base))
		s.remove("one")
		s.cleanup()
		assert.True(t, s.kept(base), "there is a second one")
		s.restart()
		assert.True(t, s.kept(base), "which was there at the start")
		s.remove("two")
		s.cleanup()
		assert.False(t, s.kept(base))
		s.view("three", "base")
		assert.True(t, s.kept(base))
		require.NoError(t, s.sn.Close())
		assert.False(t, s.kept(base), "nothing stays behind")
	})
}

// What is kept mounted is no reason to keep the template.
func TestTemplatesOfViewsCanGo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := begin(t, keepWarm(0))
		s.layer("base", "", "b;")
		base := s.templateOf("base")
		s.view("look", "base")
		assert.True(t, s.kept(base))
		s.remove("look")
		s.remove("base")
		s.cleanup()
		assert.False(t, s.kept(base))
		assert.NotContains(t, s.datasets(), base)
	})
}

// To count objects is to mount: not when a container is about to.
func TestNothingIsCountedWhenAMountIsExpected(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := begin(t)
		s.prepare("web", "")
		s.write("web", "a;")
		time.Sleep(mountTime)
		first, err := s.sn.Usage(s.ctx, "web")
		require.NoError(t, err)
		require.Equal(t, snapshots.Usage{Size: 2, Inodes: 1}, first)
		s.write("web", "b;")
		time.Sleep(usageFresh)

		_, err = s.sn.Mounts(s.ctx, "web")
		require.NoError(t, err)
		got, err := s.sn.Usage(s.ctx, "web")
		require.NoError(t, err)
		assert.Equal(t, snapshots.Usage{Size: 4, Inodes: 1}, got, "new bytes, the old count")
		time.Sleep(mountTime)
		got, err = s.sn.Usage(s.ctx, "web")
		require.NoError(t, err)
		assert.Equal(t, snapshots.Usage{Size: 4, Inodes: 2}, got)

		// A count is under way: the mount waits for it.
		s.write("web", "c;")
		time.Sleep(usageFresh)
		letGo := s.slow("objects")
		counted, mounted := make(chan error, 1), make(chan error, 1)
		go func() { _, err := s.sn.Usage(s.ctx, "web"); counted <- err }()
		synctest.Wait()
		go func() { _, err := s.sn.Mounts(s.ctx, "web"); mounted <- err }()
		synctest.Wait()
		assert.Empty(t, mounted)
		letGo()
		require.NoError(t, <-counted)
		require.NoError(t, <-mounted)
	})
}
