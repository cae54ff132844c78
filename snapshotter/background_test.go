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
)

// In the background a cleanup begins when nobody has written for a while, and on a
// machine that is never quiet some time later all the same; by hand only when
// somebody says so.
func TestCleanupModes(t *testing.T) {
	t.Parallel()
	background := settings(func(c *Config) { c.Cleanup = CleanupBackground })
	gone := func(s *story) bool { synctest.Wait(); return len(s.datasets()) == 1 }
	garbage := func(s *story) {
		s.prepare("gone", "")
		s.remove("gone")
		require.NoError(s, s.sn.Cleanup(s.ctx))
	}
	t.Run("background, quiet", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := begin(t, background)
			garbage(s)
			time.Sleep(backgroundQuiet - time.Second)
			assert.False(t, gone(s))
			time.Sleep(2 * time.Second)
			assert.True(t, gone(s))
		})
	})
	t.Run("background, while something is written", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := begin(t, background)
			end := s.sn.Begin(s.ctx)
			garbage(s)
			time.Sleep(backgroundPatience - time.Second)
			assert.False(t, gone(s))
			end()
			time.Sleep(backgroundQuiet + time.Second)
			assert.True(t, gone(s))
		})
	})
	t.Run("background, never quiet", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := begin(t, background)
			defer s.sn.Begin(s.ctx)()
			garbage(s)
			time.Sleep(backgroundPatience + 2*time.Second)
			assert.True(t, gone(s))
		})
	})
	t.Run("background, what expires", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := begin(t, background, keepCached(time.Hour))
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
			s := begin(t, background)
			garbage(s)
			letGo := s.slow("destroy")
			time.Sleep(backgroundQuiet + time.Second)
			synctest.Wait()
			assert.True(t, s.sn.StopCleanup())
			letGo()
			s.pool.interrupt(nil)
			synctest.Wait()
			s.prepare("more", "")
			s.remove("more")
			time.Sleep(time.Hour)
			assert.False(t, gone(s), "until somebody asks for it")
			assert.False(t, s.sn.StopCleanup(), "there is none")
			require.NoError(t, s.sn.Cleanup(s.ctx))
			time.Sleep(backgroundQuiet + time.Second)
			assert.True(t, gone(s))
		})
	})
	t.Run("manual", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := begin(t, settings(func(c *Config) { c.Cleanup = CleanupManual }))
			garbage(s)
			time.Sleep(1000 * time.Hour)
			assert.False(t, gone(s))
			require.NoError(t, s.sn.Clean(s.ctx, nil))
			assert.True(t, gone(s))
		})
	})
	t.Run("no mode", func(t *testing.T) {
		t.Parallel()
		s := begin(t)
		require.NoError(t, s.sn.Close())
		s.with = func(c *Config) { c.Cleanup = "never" }
		require.ErrorIs(t, s.tryStart(), errdefs.ErrInvalidArgument)
	})
}

// Whoever waits for a cleanup does not wait for one in the background.
func TestABackgroundCleanupMakesWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := begin(t, settings(func(c *Config) { c.Cleanup = CleanupBackground }))
		for i := range 2 * quietBatch {
			s.prepare(fmt.Sprint(i), "")
			s.remove(fmt.Sprint(i))
		}
		letGo := s.slow("destroy")
		time.Sleep(backgroundQuiet + time.Second)
		synctest.Wait()
		answer := make(chan error, 1)
		go func() { answer <- s.sn.Clean(s.ctx, nil) }()
		synctest.Wait()
		letGo()
		s.pool.interrupt(nil)
		require.NoError(t, <-answer)
		assert.Len(t, s.datasets(), 1)
		assert.NotContains(t, s.log.String(), "could not be done")
	})
}

// A cleanup that is stopped, or whose caller goes away, ends behind the batch it is
// at, says so, and the next one does the rest.
func TestACleanupIsStopped(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		stop func(s *story, cancel func())
		want error
	}{
		"by command": {func(s *story, _ func()) { assert.True(s, s.sn.StopCleanup()) }, errdefs.ErrAborted},
		"its caller": {func(_ *story, cancel func()) { cancel() }, context.Canceled},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := begin(t)
				for i := range 2 * quietBatch {
					s.prepare(fmt.Sprint(i), "")
					s.remove(fmt.Sprint(i))
				}
				time.Sleep(2 * quietPeriod)
				letGo := s.slow("destroy")
				ctx, cancel := context.WithCancel(s.ctx)
				answer := make(chan error, 1)
				go func() { answer <- s.sn.Clean(ctx, nil) }()
				synctest.Wait()
				c.stop(s, cancel)
				letGo()
				s.pool.interrupt(nil)
				require.ErrorIs(t, <-answer, c.want)
				assert.Len(t, s.datasets(), 1+quietBatch)
				s.requireInvariants()
				s.cleanup()
				assert.Len(t, s.datasets(), 1)
			})
		})
	}
}
