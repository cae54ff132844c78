package snapshotter

import (
	"testing"
	"testing/synctest"
	"time"

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
