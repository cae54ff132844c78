package snapshotter

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/zfstpl/zfstpl/integration/model"
	"github.com/zfstpl/zfstpl/snapshotter/internal/supply"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
	"github.com/zfstpl/zfstpl/snapshotter/zfs/zfsfake"
)

// withReady gives the base a log and up to eight ready runtimes.
func withReady(s *fixture) {
	withLog(s)
	with := s.with
	s.with = func(c *Config) {
		c.Ready = 8
		if with != nil {
			with(c)
		}
	}
}

// readyRuntimes returns the ready runtimes in the pool.
func (s *fixture) readyRuntimes() (ready []string) {
	s.sn.index.EachReady(func(dataset string) { ready = append(ready, dataset) })
	for _, dataset := range ready {
		assert.Contains(s, s.pool.Now().FS, dataset)
	}
	return ready
}

// refilled waits until refills are complete. It works in a synctest bubble only.
func (s *fixture) refilled() {
	time.Sleep(2 * enoughDelay)
	synctest.Wait()
}

// startWeb starts a container "web" on a new template "base", which then has ready runtimes.
func (s *fixture) startWeb() {
	s.Helper()
	s.layer("base", "", "b;")
	s.prepare("web", "base")
	s.refilled()
	require.NotEmpty(s, s.readyRuntimes())
}

// A container on a template of which one was started gets a ready runtime: its start causes no
// transaction, and is durable.
func TestContainerStartsInAReadyRuntime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t, withReady, func(s *fixture) { s.pool = zfsfake.New(s, zfsfake.LosesWrites) })
		s.layer("base", "", "b;")
		assert.Empty(t, s.readyRuntimes(), "none for an unused template")
		s.prepare("first", "base")
		s.refilled()
		require.Len(t, s.readyRuntimes(), supply.Few)
		transactions, syncs := s.pool.Count(zfsfake.Before(zfsfake.Transaction)), s.pool.Count(zfsfake.After(zfsfake.Sync))
		s.prepare("web", "base")
		s.prepare("default/5/extract-1-x "+chain("a"), "base")
		assert.Zero(t, transactions())
		assert.Equal(t, 1, syncs(), "that of an extraction is not synchronised")
		assert.Equal(t, "b;", s.visible()["web"].Content)
		s.write("web", "w;")
		s.crash()
		assert.Equal(t, "b;w;", s.visible()["web"].Content)
		assert.Contains(t, s.names(), "first")
		s.requireInvariants()
		assert.Empty(t, s.readyRuntimes())
	})
}

// No process hands out a ready runtime that an earlier process has made.
func TestReadyRuntimesOfAnEarlierProcessAreGarbage(t *testing.T) {
	t.Parallel()
	for what, end := range map[string]func(s *fixture){"stop": (*fixture).restart, "crash": (*fixture).crash} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newFixture(t, withReady)
				s.startWeb()
				old := s.readyRuntimes()
				require.NotEmpty(t, old)
				end(s)
				assert.Empty(t, s.readyRuntimes())
				s.prepare("next", "base")
				assert.NotContains(t, old, s.dataset("next"))
				s.cleanup()
				for _, dataset := range old {
					assert.NotContains(t, s.datasets(), dataset)
				}
				s.requireInvariants()
			})
		})
	}
}

// A ready runtime keeps no template: the last record takes the ready runtimes along.
func TestReadyRuntimesDoNotKeepATemplate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t, withReady, keepCached(0))
		s.startWeb()
		s.remove("web", "base")
		assert.Empty(t, s.readyRuntimes())
		s.cleanup()
		assert.Equal(t, []string{"tank/z/storage/empty"}, s.datasets())
		s.refilled()
		assert.Equal(t, []string{"tank/z/storage/empty"}, s.datasets())
		s.requireInvariants()
	})
}

// They are given up when there is no space, and not made again for a while.
func TestReadyRuntimesAreGivenUpForSpace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t, withReady)
		s.startWeb()
		end := s.pool.FailAt(zfsfake.Before(zfsfake.Apply), zfsfake.Refuse(zfs.ErrNoSpace), zfsfake.Once())
		s.prepare("other", "") // not on the template
		end()
		assert.Empty(t, s.readyRuntimes())
		s.prepare("more", "base")
		s.refilled()
		assert.Empty(t, s.readyRuntimes())
		time.Sleep(refillPause)
		s.prepare("later", "base")
		s.refilled()
		assert.NotEmpty(t, s.readyRuntimes())
		s.requireInvariants()
	})
}

// A template of which no container was started for long has none.
func TestReadyRuntimesOfAnUnusedTemplateAreGivenUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t, withReady)
		s.startWeb()
		time.Sleep(2 * supply.Unused)
		synctest.Wait()
		assert.Empty(t, s.readyRuntimes())
		s.requireInvariants()
	})
}

// A ready runtime has the configured quota. A container with another one, and an extraction,
// which has none, do not get it.
func TestReadyRuntimesHaveTheConfiguredQuota(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t, settings(func(c *Config) { c.Quota = 1000 }), withReady)
		s.startWeb()
		ready := s.readyRuntimes()
		require.Len(t, ready, supply.Few)
		quota := func(key string) string { return s.pool.Now().FS[s.dataset(key)].Native["refquota"] }
		s.prepare("default/5/extract-1-x "+chain("a"), "base")
		assert.Empty(t, quota("default/5/extract-1-x "+chain("a")))
		s.prepare("large", "base", maxSizeLabel("5000"))
		assert.NotContains(t, ready, s.dataset("large"))
		s.prepare("next", "base")
		assert.Contains(t, ready, s.dataset("next"))
		assert.Equal(t, quota("web"), quota("next"))
		s.requireInvariants()
	})
}

// If the claim cannot be written to the log, or it is not known whether it was, a transaction
// writes it to the same runtime: no other dataset gets the same record.
func TestClaimThatCannotBeLoggedIsATransaction(t *testing.T) {
	t.Parallel()
	for what, at := range map[string]zfsfake.Point{"write": zfsfake.Before(zfsfake.Write), "sync": zfsfake.Before(zfsfake.Sync)} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newFixture(t, withReady)
				s.startWeb()
				ready := s.readyRuntimes()
				end := s.pool.FailAt(at, zfsfake.Return(unix.EIO))
				s.prepare("next", "base")
				s.prepare("default/5/extract-1-x "+chain("a"), "base")
				assert.Contains(t, ready, s.dataset("next"))
				s.write("next", "n;")
				want := s.visible()
				end()
				s.crash()
				assert.Empty(t, model.Differences(want, s.visible()))
				s.requireInvariants()
				assert.Len(t, s.datasets(), 2+3)
			})
		})
	}
}

// A refill that a crash or a kill interrupts leaves garbage only.
func TestInterruptedRefillLeavesGarbage(t *testing.T) {
	t.Parallel()
	for what, failure := range map[string]zfsfake.Failure{"killed": zfsfake.Kill(), "crashed": zfsfake.Crash()} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newFixture(t, torn, withReady)
				s.layer("base", "", "b;")
				s.prepare("web", "base")
				s.pool.FailAt(zfsfake.After(zfsfake.Clone), failure, zfsfake.Once())
				s.refilled()
				s.crash()
				assert.Equal(t, []string{"base", "web"}, s.names())
				s.requireInvariants()
				assert.Len(t, s.datasets(), 3)
			})
		})
	}
}
