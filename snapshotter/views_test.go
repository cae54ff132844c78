package snapshotter

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/zfs/zfsfake"
)

// isMounted waits for all goroutines and reports whether a template has a view mount.
func (s *fixture) isMounted(template string) bool {
	synctest.Wait()
	n := 0
	s.pool.Edit(func(state *zfsfake.State) { n = state.Attached[template+"@extracted"] })
	assert.LessOrEqual(s, n, 1, "one mount is enough")
	return n == 1
}

// A template with views stays mounted, so that the mounts of clients never are the first or
// the last.
func TestTemplateStaysMountedWhileItHasViews(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t, keepCached(time.Hour))
		s.layer("base", "", "b;")
		base := s.templateOf("base")
		assert.False(t, s.isMounted(base))
		s.view("one", "base")
		s.view("two", "base")
		assert.True(t, s.isMounted(base))
		s.remove("one")
		s.cleanup()
		assert.True(t, s.isMounted(base), "there is a second view")
		s.restart()
		assert.True(t, s.isMounted(base), "a start mounts the template")
		s.remove("two")
		s.cleanup()
		assert.False(t, s.isMounted(base))
		s.view("three", "base")
		assert.True(t, s.isMounted(base))
		require.NoError(t, s.sn.Close())
		assert.False(t, s.isMounted(base), "Close unmounts it")
	})
}

// A view mount does not keep a template without records from being destroyed.
func TestViewMountDoesNotKeepTemplate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t, keepCached(0))
		s.layer("base", "", "b;")
		base := s.templateOf("base")
		s.view("look", "base")
		assert.True(t, s.isMounted(base))
		s.remove("look")
		s.remove("base")
		s.cleanup()
		assert.False(t, s.isMounted(base))
		assert.NotContains(t, s.datasets(), base)
	})
}

// If the unmount of a template fails, only that template stays, if it is busy. The cleanup
// continues, and the other templates of the batch are destroyed.
func TestFailedUnmountKeepsOnlyItsTemplate(t *testing.T) {
	t.Parallel()
	for _, busy := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := newFixture(t, keepCached(time.Hour))
			a, _ := s.pull("default", "", chain("a"), "a;")
			b, _ := s.pull("default", "", chain("b"), "b;")
			one, other := s.templateOf(a), s.templateOf(b)
			s.cleanup()
			at := zfsfake.After(zfsfake.Detach)
			if busy {
				at = zfsfake.Before(zfsfake.Detach)
			}
			s.pool.FailAt(at.Of(one), zfsfake.Return(errors.New("no")))
			s.view("look", a)
			require.True(t, s.isMounted(one))
			s.remove("look", a, b)
			s.cleanup()
			time.Sleep(2 * time.Hour)
			require.NoError(t, s.sn.Clean(s.ctx, nil))
			assert.Equal(t, busy, s.has(one))
			assert.False(t, s.has(other))
			assert.Contains(t, s.log.String(), "failed to unmount template without views")
			s.pool.Edit(func(state *zfsfake.State) { clear(state.Attached) })
			s.waitForRetries()
			assert.False(t, s.has(one))
			s.requireInvariants()
		})
	}
}
