package snapshotter

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/internal/reaper"
	"github.com/zfstpl/zfstpl/snapshotter/zfs/zfsfake"
)

// In mode CleanupBackground a cleanup begins when no operation has written for a while, and
// at the latest after BackgroundPatience. In mode CleanupManual it begins only in Clean.
func TestCleanupModes(t *testing.T) {
	t.Parallel()
	background := settings(func(c *Config) { c.Cleanup = CleanupBackground })
	gone := func(s *fixture) bool { synctest.Wait(); return len(s.datasets()) == 1 }
	garbage := func(s *fixture) {
		s.prepare("gone", "")
		s.remove("gone")
		require.NoError(s, s.sn.Cleanup(s.ctx))
	}
	t.Run("background, quiet", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := newFixture(t, background)
			garbage(s)
			time.Sleep(reaper.BackgroundQuiet - time.Second)
			assert.False(t, gone(s))
			time.Sleep(2 * time.Second)
			assert.True(t, gone(s))
		})
	})
	t.Run("background, while a layer is written", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := newFixture(t, background)
			end := s.sn.Begin(s.ctx)
			garbage(s)
			time.Sleep(reaper.BackgroundPatience - time.Second)
			assert.False(t, gone(s))
			end()
			time.Sleep(reaper.BackgroundQuiet + time.Second)
			assert.True(t, gone(s))
		})
	})
	t.Run("background, never quiet", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := newFixture(t, background)
			defer s.sn.Begin(s.ctx)()
			garbage(s)
			time.Sleep(reaper.BackgroundPatience + 2*time.Second)
			assert.True(t, gone(s))
		})
	})
	t.Run("background, expired template", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := newFixture(t, background, keepCached(time.Hour))
			name, _ := s.pull("default", "", chain("a"), "a;")
			s.remove(name)
			time.Sleep(time.Hour - time.Second)
			assert.False(t, gone(s))
			time.Sleep(5 * time.Second)
			assert.True(t, gone(s))
		})
	})
	t.Run("background, stopped", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := newFixture(t, background)
			garbage(s)
			resume := s.block(zfsfake.Destroy)
			time.Sleep(reaper.BackgroundQuiet + time.Second)
			synctest.Wait()
			assert.True(t, s.sn.StopCleanup())
			resume()
			synctest.Wait()
			s.prepare("more", "")
			s.remove("more")
			time.Sleep(time.Hour)
			assert.False(t, gone(s), "paused until the next request")
			assert.False(t, s.sn.StopCleanup(), "no cleanup is running")
			require.NoError(t, s.sn.Cleanup(s.ctx))
			time.Sleep(reaper.BackgroundQuiet + time.Second)
			assert.True(t, gone(s))
		})
	})
	t.Run("manual", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := newFixture(t, settings(func(c *Config) { c.Cleanup = CleanupManual }))
			garbage(s)
			time.Sleep(1000 * time.Hour)
			assert.False(t, gone(s))
			require.NoError(t, s.sn.Clean(s.ctx, nil))
			assert.True(t, gone(s))
		})
	})
	t.Run("unknown mode", func(t *testing.T) {
		t.Parallel()
		s := newFixture(t)
		require.NoError(t, s.sn.Close())
		s.with = func(c *Config) { c.Cleanup = "never" }
		require.ErrorIs(t, s.tryStart(), errdefs.ErrInvalidArgument)
	})
}

// A background cleanup yields to one for which a caller waits.
func TestBackgroundCleanupYieldsToCallers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t, settings(func(c *Config) { c.Cleanup = CleanupBackground }))
		for i := range 2 * reaper.QuietBatch {
			s.prepare(fmt.Sprint(i), "")
			s.remove(fmt.Sprint(i))
		}
		resume := s.block(zfsfake.Destroy)
		time.Sleep(reaper.BackgroundQuiet + time.Second)
		synctest.Wait()
		result := make(chan error, 1)
		go func() { result <- s.sn.Clean(s.ctx, nil) }()
		synctest.Wait()
		resume()
		require.NoError(t, <-result)
		assert.Len(t, s.datasets(), 1)
		assert.NotContains(t, s.log.String(), "background cleanup failed")
	})
}

// A cleanup that is stopped, or whose caller gives up, ends with an error after the current
// batch. The next one destroys the rest.
func TestStoppedCleanupEndsAfterItsBatch(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		stop func(s *fixture, cancel func())
		want error
	}{
		"StopCleanup": {func(s *fixture, _ func()) { assert.True(s, s.sn.StopCleanup()) }, errdefs.ErrAborted},
		"its context": {func(_ *fixture, cancel func()) { cancel() }, context.Canceled},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newFixture(t)
				for i := range 2 * reaper.QuietBatch {
					s.prepare(fmt.Sprint(i), "")
					s.remove(fmt.Sprint(i))
				}
				time.Sleep(2 * reaper.QuietPeriod)
				resume := s.block(zfsfake.Destroy)
				ctx, cancel := context.WithCancel(s.ctx)
				result := make(chan error, 1)
				go func() { result <- s.sn.Clean(ctx, nil) }()
				synctest.Wait()
				c.stop(s, cancel)
				resume()
				require.ErrorIs(t, <-result, c.want)
				assert.Len(t, s.datasets(), 1+reaper.QuietBatch)
				s.requireInvariants()
				s.cleanup()
				assert.Len(t, s.datasets(), 1)
			})
		})
	}
}
