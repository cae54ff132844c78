package snapshotter

import (
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zfstpl/zfstpl/snapshotter/internal/backoff"
	"github.com/zfstpl/zfstpl/snapshotter/internal/reaper"
	"github.com/zfstpl/zfstpl/snapshotter/space"
	"github.com/zfstpl/zfstpl/snapshotter/zfs/zfsfake"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/holders"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// mount mounts a dataset or snapshot without the snapshotter.
func (s *fixture) mount(name string) {
	s.pool.Edit(func(state *zfsfake.State) { state.Mounted[name] = true })
}

func (s *fixture) unmount(name string) {
	s.pool.Edit(func(state *zfsfake.State) { delete(state.Mounted, name) })
}

// destroys counts the pool's later destroys.
func (s *fixture) destroys() (n func() int) {
	return s.pool.Count(zfsfake.Before(zfsfake.Destroy))
}

// A busy dataset is retried in the background with growing pauses. A cleanup during a pause
// skips it.
func TestBusyDatasetIsRetriedWithBackoff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t, keepCached(0))
		s.prepare("web", "")
		web := s.dataset("web")
		s.mount(web)
		s.remove("web")
		n := s.destroys()
		s.cleanup()
		s.cleanup()
		assert.Equal(t, 2, n(), "the next cleanup retries")
		s.cleanup()
		assert.Equal(t, 2, n(), "the one after that is too early")
		at := time.Duration(0)
		for i, pause := range []time.Duration{1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600} {
			time.Sleep(pause*time.Second - time.Millisecond)
			synctest.Wait()
			require.Equal(t, i+2, n(), "%v after the first", at)
			time.Sleep(time.Millisecond)
			synctest.Wait()
			at += pause * time.Second
			require.Equal(t, i+3, n(), "%v after the first", at)
		}
		assert.Equal(t, 1, strings.Count(s.log.String(), "level=warning"), "logged once: %s", s.log)
		s.unmount(web)
		s.waitForRetries()
		assert.Len(t, s.datasets(), 1, "destroyed without a request")
		tried := n()
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		assert.Equal(t, tried, n(), "no destroy when there is nothing to destroy")
	})
}

// In a full pool a mounted template loses its snapshot when a cleanup tries to destroy it.
// It is garbage then: the next pull unpacks the layer, and the dataset is destroyed when it
// is unmounted.
func TestMountedTemplateWithoutItsSnapshotIsGarbage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t, keepCached(0))
		a := chain("a")
		name, _ := s.pull("default", "", a, "x;")
		template := s.templateOf(name)
		s.remove(name)
		s.mount(template)
		s.pool.Edit(func(state *zfsfake.State) { state.Full = true })
		s.cleanup()
		s.pool.Edit(func(state *zfsfake.State) { state.Full = false })
		require.True(t, s.has(template), "it is mounted")

		name, unpacked := s.pull("default", "", a, "x;")
		assert.True(t, unpacked)
		s.prepare("web", name)
		assert.Equal(t, "x;", s.visible()["web"].Content)
		s.unmount(template)
		s.waitForRetries()
		assert.False(t, s.has(template))
		s.requireInvariants()
	})
}

// Clean ignores the backoff.
func TestCleanIgnoresBackoff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t, keepCached(0))
		s.prepare("web", "")
		web := s.dataset("web")
		s.mount(web)
		s.remove("web")
		s.cleanup()
		for range 3 {
			s.waitForRetries()
		}
		s.unmount(web)
		var last reaper.Progress
		require.NoError(t, s.sn.Clean(s.ctx, func(p reaper.Progress) { last = p }))
		assert.Equal(t, reaper.Progress{Looked: 1, Of: 1, Destroyed: 1}, last)
		assert.False(t, s.has(web))
	})
}

// Without another cleanup the first two retries are a second apart.
func TestBusyDatasetIsRetriedInTheBackground(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t, keepCached(0))
		s.prepare("web", "")
		s.mount(s.dataset("web"))
		s.remove("web")
		n := s.destroys()
		s.cleanup()
		for i, pause := range []time.Duration{1, 1, 2, 4} {
			time.Sleep(pause*time.Second - time.Millisecond)
			synctest.Wait()
			require.Equal(t, i+1, n())
			time.Sleep(time.Millisecond)
			synctest.Wait()
			require.Equal(t, i+2, n())
		}
	})
}

// The first cleanup after the pause retries, without waiting for the timer.
func TestBusyDatasetIsRetriedByTheNextCleanup(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t, keepCached(0))
		s.layer("base", "", "b;")
		s.prepare("web", "base")
		s.prepare("db", "base")
		web := s.dataset("web")
		s.mount(web)
		s.remove("web")
		s.cleanup()
		s.remove("db", "base")
		s.cleanup()
		assert.Len(t, s.datasets(), 3, "the busy dataset keeps its origin and nothing else")
		s.unmount(web)
		time.Sleep(backoff.Min)
		s.cleanup()
		assert.Len(t, s.datasets(), 1)
	})
}

// The log names the holders of a busy dataset and a fix. If the holders change, it does so
// again, and the backoff starts again.
func TestBusyDatasetIsLoggedWithItsHolders(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var queried [][]string
		var found map[string][]holders.Mount
		s := newFixture(t, keepCached(0), settings(func(c *Config) {
			c.holders = func(datasets ...string) map[string][]holders.Mount {
				mu.Lock()
				defer mu.Unlock()
				queried = append(queried, datasets)
				return found
			}
		}))
		s.prepare("web", "")
		s.prepare("db", "")
		web, db := s.dataset("web"), s.dataset("db")
		s.mount(web)
		found = map[string][]holders.Mount{web: {
			{Source: web, Mountpoint: "/run/x y", PID: 123, Command: "containerd-shim", Namespace: "mnt:[4026]"},
			{Source: web, Mountpoint: "/", PID: 456, Command: "sh", Namespace: "mnt:[4027]"},
		}}
		require.NoError(t, s.pool.Apply(s.ctx, zfs.Snapshot(db+"@daily")))
		s.remove("web", "db")
		s.cleanup()
		mu.Lock()
		assert.Equal(t, [][]string{{web}}, queried, "only for the busy dataset, and once")
		mu.Unlock()
		text := s.log.String()
		assert.Contains(t, text, "mounted at /run/x y by containerd-shim (pid 123, mnt:[4026]); mounted at / by sh (pid 456, mnt:[4027])")
		assert.Contains(t, text, `nsenter -t 123 -m umount \"/run/x y\"`)

		time.Sleep(backoff.Max)
		synctest.Wait()
		assert.Equal(t, 1, strings.Count(s.log.String(), "containerd-shim"))
		mu.Lock()
		found = nil
		mu.Unlock()
		n := s.destroys()
		s.waitForRetries()
		assert.Equal(t, 1, strings.Count(s.log.String(), "no inspected process has the dataset mounted"), "the holders have ended")
		assert.GreaterOrEqual(t, n(), 5, "the backoff starts again")
	})
}

// A stuck layer that is reused loses its backoff: its next cleanup does not wait.
func TestReusedTemplateLosesItsBackoff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t, keepCached(0))
		a, _ := s.pull("default", "", chain("a"), "a;")
		s.cleanup()
		template := s.templateOf(a)
		s.mount(template + "@extracted")
		s.remove(a)
		s.cleanup()
		time.Sleep(time.Hour)
		a, unpacked := s.pull("default", "", chain("a"), "")
		require.False(t, unpacked)
		s.waitForRetries()
		assert.Contains(t, s.datasets(), template)
		s.unmount(template + "@extracted")
		s.remove(a)
		s.cleanup()
		assert.NotContains(t, s.datasets(), template, "destroyed at once")
	})
}

// While the pool is suspended the pauses between background cleanups grow, and Close does
// not wait for them.
func TestBackgroundCleanupsOfAFailingPoolBackOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t, keepCached(0))
		s.prepare("web", "")
		s.mount(s.dataset("web"))
		s.remove("web")
		s.cleanup()
		n := s.pool.Count(zfsfake.Before(zfsfake.Call))
		end := s.pool.FailAt(zfsfake.Before(zfsfake.Call), zfsfake.Refuse(zfs.ErrSuspended))
		time.Sleep(time.Hour)
		synctest.Wait()
		assert.Less(t, n(), 30)
		assert.Contains(t, s.log.String(), "background cleanup failed")
		end()
		s.waitForRetries()
		s.pool.Edit(func(state *zfsfake.State) {
			assert.NotEmpty(t, state.FS["tank/z"].Props[layout.CleanupProperty], "the mark is retried")
		})
		require.NoError(t, s.sn.Close())
		before := time.Now()
		require.NoError(t, s.sn.Close())
		assert.Equal(t, before, time.Now())
	})
}

// Close waits for a retry that is running.
func TestCloseWaitsForARetry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t, keepCached(0))
		s.prepare("web", "")
		s.mount(s.dataset("web"))
		s.remove("web")
		s.cleanup()
		resume := s.block(zfsfake.Destroy)
		time.Sleep(backoff.Min)
		synctest.Wait()
		closed := make(chan error, 1)
		go func() { closed <- s.sn.Close() }()
		resume()
		require.NoError(t, <-closed)
	})
}

// What another program writes into a mounted template is in no clone of it, nor in the
// layer of the next pull.
func TestForeignWritesIntoATemplateAreNeverCloned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t, keepCached(0))
		name, _ := s.pull("default", "", chain("a"), "a;")
		s.cleanup()
		template := s.templateOf(name)
		s.mount(template)
		s.pool.EditFS(template, func(fs *zfsfake.FS) { fs.Content += "foreign;" })
		s.prepare("db", name)
		require.Equal(t, "a;", s.visible()["db"].Content)
		s.remove("db", name)
		s.cleanup()
		s.cleanup() // the first cleanup destroyed db
		require.True(t, s.has(template), "it is mounted")

		name, _ = s.pull("default", "", chain("a"), "a;")
		s.prepare("web", name)
		assert.Equal(t, "a;", s.visible()["web"].Content)
	})
}

// A template that was stuck, and then waits for a clone that is stuck, is retried with the
// clone and not every second.
func TestTemplateOfAStuckCloneIsRetriedWithIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t, keepCached(0))
		name, _ := s.pull("default", "", chain("a"), "x;")
		template := s.templateOf(name)
		var clone string
		for _, dataset := range s.datasets() {
			if strings.HasPrefix(dataset, s.base.Runtime()) {
				clone = dataset // in which the layer was unpacked
			}
		}
		s.mount(clone)
		s.pool.EditFS(template, func(fs *zfsfake.FS) { fs.Snaps["daily"] = zfsfake.Snap{} })
		s.remove(name)
		s.cleanup()
		s.pool.EditFS(template, func(fs *zfsfake.FS) { delete(fs.Snaps, "daily") })
		n := s.destroys()
		time.Sleep(time.Hour)
		synctest.Wait()
		tried := n()
		assert.Positive(t, tried)
		assert.Less(t, tried, 30, "in an hour")
		next := space.NewPlan(s.sn.index.Nodes(), nil, space.Policy{}, time.Now()).NextRetry
		assert.True(t, next.After(time.Now()), "no retry is due: %s", time.Until(next))
		s.unmount(clone)
		s.waitForRetries()
		assert.False(t, s.has(template))
		s.requireInvariants()
	})
}
