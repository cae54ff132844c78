package snapshotter

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/model"
	"github.com/zfstpl/zfstpl/snapshotter/internal/index"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
	"github.com/zfstpl/zfstpl/snapshotter/zfs/zfsfake"
)

// crashOperations are the operations that the crash tests interrupt, and their
// preparations. An operation is done when its changes are in the pool.
var crashOperations = map[string]struct {
	before func(s *fixture)
	do     func(s *fixture) error
}{
	"prepare": {
		func(s *fixture) { s.layer("base", "", "b;") },
		func(s *fixture) error { return second(s.sn.Prepare(s.ctx, "web", "base", label("a", "b"))) },
	},
	"prepare with a long record": {
		func(s *fixture) { s.layer("base", "", "b;") },
		func(s *fixture) error {
			return second(s.sn.Prepare(s.ctx, "web", "base", label("a", strings.Repeat("x", 30_000))))
		},
	},
	"prepare with a quota": {
		func(s *fixture) { s.layer("base", "", "b;") },
		func(s *fixture) error { return second(s.sn.Prepare(s.ctx, "web", "base", maxSizeLabel("1000"))) },
	},
	"prepare without a parent": {
		func(*fixture) {},
		func(s *fixture) error { return second(s.sn.Prepare(s.ctx, "web", "")) },
	},
	"view": {
		func(s *fixture) { s.layer("base", "", "b;") },
		func(s *fixture) error { return second(s.sn.View(s.ctx, "look", "base", label("a", "b"))) },
	},
	"commit": {
		func(s *fixture) { s.layer("base", "", "b;"); s.prepare("web", "base"); s.write("web", "w;") },
		func(s *fixture) error { return s.sn.Commit(s.ctx, "saved", "web", label("a", "b")) },
	},
	"commit after an update": {
		func(s *fixture) {
			s.prepare("web", "", label("a", "old"))
			s.write("web", "w;")
			_, err := s.sn.Update(s.ctx, snapshots.Info{Name: "web", Labels: map[string]string{"a": strings.Repeat("new", 6_000)}})
			require.NoError(s, err)
		},
		func(s *fixture) error { return s.sn.Commit(s.ctx, "saved", "web", label("a", "b")) },
	},
	"commit of a layer": {
		func(s *fixture) {
			s.pull("default", "", chain("a"), "a;")
			s.prepare("default/8/extract-1-x "+chain("b"), "default/2/"+chain("a"), ref(chain("b")))
			s.write("default/8/extract-1-x "+chain("b"), "b;")
		},
		func(s *fixture) error {
			return s.sn.Commit(s.ctx, "default/9/"+chain("b"), "default/8/extract-1-x "+chain("b"), ref(chain("b")))
		},
	},
	"commit of a layer with a known diff ID": {
		func(s *fixture) {
			s.prepare("default/8/extract-1-x "+lowerChain, "", ref(lowerChain))
			s.write("default/8/extract-1-x "+lowerChain, "b;")
			s.sn.Fill(s.dataset("default/8/extract-1-x "+lowerChain))(lower, lowerBlob)
		},
		func(s *fixture) error {
			return s.sn.Commit(s.ctx, "default/9/"+lowerChain, "default/8/extract-1-x "+lowerChain, ref(lowerChain))
		},
	},
	"commit of an existing layer": {
		func(s *fixture) {
			s.prepare("default/8/extract-1-x "+chain("a"), "")
			s.write("default/8/extract-1-x "+chain("a"), "other;")
			s.pull("default", "", chain("a"), "a;")
		},
		func(s *fixture) error {
			return s.sn.Commit(s.ctx, "default/9/"+chain("a"), "default/8/extract-1-x "+chain("a"))
		},
	},
	"prepare of a cached layer": {
		func(s *fixture) { name, _ := s.pull("default", "", chain("a"), "a;"); s.remove(name); s.cleanup() },
		func(s *fixture) error {
			err := second(s.sn.Prepare(s.ctx, "default/9/extract-1-x "+chain("a"), "", ref(chain("a"))))
			if errdefs.IsAlreadyExists(err) {
				return nil
			}
			return err
		},
	},
	"prepare of a stand-in": {
		func(s *fixture) { s.unpack("default", "", lowerChain, lower, lowerBlob) },
		func(s *fixture) error {
			return second(s.sn.Prepare(s.ctx, "zoo/9/extract-1-x "+lowerChain, "", ref(lowerChain), label(ReuseLabel, "fetch")))
		},
	},
	"commit of a stand-in": {
		func(s *fixture) {
			s.remove(s.unpack("default", "", lowerChain, lower, lowerBlob))
			s.prepare("zoo/9/extract-1-x "+lowerChain, "", ref(lowerChain), label(ReuseLabel, "fetch"))
			s.flush()
		},
		func(s *fixture) error {
			return s.sn.Commit(s.ctx, "zoo/10/"+lowerChain, "zoo/9/extract-1-x "+lowerChain, ref(lowerChain))
		},
	},
	"remove of a stand-in": {
		func(s *fixture) {
			s.unpack("default", "", lowerChain, lower, lowerBlob)
			s.prepare("zoo/9/extract-1-x "+lowerChain, "", ref(lowerChain), label(ReuseLabel, "fetch"))
		},
		func(s *fixture) error { s.remove("zoo/9/extract-1-x " + lowerChain); return s.sn.journal.Flush(s.ctx) },
	},
	"restore of a lost record": {
		func(s *fixture) {
			names := s.image("default", "a;", "b;")
			// Without another record the first cleanup would destroy the template.
			key := "k8s.io/80/extract-1-x " + chainIDOf(names[1])
			s.prepare(key, names[0])
			s.commit("k8s.io/81/"+chainIDOf(names[1]), key)
			s.loseRecords(names[1])
		},
		func(s *fixture) error {
			return s.sn.restore(s.ctx, "default/4/"+layout.ChainID(digest.FromString("a;").String(), digest.FromString("b;").String()))
		},
	},
	"update": {
		func(s *fixture) { s.prepare("web", "", label("a", strings.Repeat("old ", 10_000))) },
		func(s *fixture) error {
			return second(s.sn.Update(s.ctx, snapshots.Info{Name: "web", Labels: map[string]string{"a": strings.Repeat("new", 6_000)}}))
		},
	},
	"remove of an active snapshot": {
		func(s *fixture) { s.prepare("web", ""); s.write("web", "w;") },
		func(s *fixture) error { s.remove("web"); return s.sn.journal.Flush(s.ctx) },
	},
	"remove of a committed snapshot": {
		func(s *fixture) { s.layer("base", "", "b;") },
		func(s *fixture) error { s.remove("base"); return s.sn.journal.Flush(s.ctx) },
	},
	"remove of a view": {
		func(s *fixture) { s.layer("base", "", "b;"); s.view("look", "base") },
		func(s *fixture) error { s.remove("look"); return s.sn.journal.Flush(s.ctx) },
	},
	"cleanup": {
		func(s *fixture) {
			s.layer("base", "", "b;")
			s.layer("app", "base", "a;")
			s.prepare("web", "app")
			s.prepare("db", "base")
			s.remove("web", "app")
			_ = s.sn.journal.Flush(s.ctx)
		},
		func(s *fixture) error { return s.sn.Cleanup(s.ctx) },
	},
	"prepare that reclaims space": {
		func(s *fixture) {
			s.layer("base", "", "b;")
			s.cachedAndFull()
		},
		func(s *fixture) error { return second(s.sn.Prepare(s.ctx, "web", "base")) },
	},
	"commit that reclaims space": {
		func(s *fixture) {
			s.prepare("web", "")
			s.write("web", "w;")
			s.cachedAndFull()
		},
		func(s *fixture) error { return s.sn.Commit(s.ctx, "saved", "web") },
	},
	"prepare of an extraction": {
		func(s *fixture) { s.layer("base", "", "b;") },
		func(s *fixture) error {
			return second(s.sn.Prepare(s.ctx, "default/8/extract-1-x "+chain("b"), "base", ref(chain("b"))))
		},
	},
	"refill": {
		func(s *fixture) { s.layer("base", "", "b;"); s.prepare("web", "base") },
		(*fixture).makeReady,
	},
	"copy of the log": {
		func(s *fixture) {
			s.layer("base", "", "b;")
			s.prepare("web", "base", label("a", "old"))
			s.view("look", "base")
			_, err := s.sn.Update(s.ctx, snapshots.Info{Name: "web", Labels: map[string]string{"a": strings.Repeat("new", 6_000)}})
			require.NoError(s, err)
		},
		func(s *fixture) error { return s.sn.journal.Flush(s.ctx) },
	},
	"discard": {
		func(s *fixture) {
			s.prepare("default/8/extract-1-x "+chain("b"), "")
			s.write("default/8/extract-1-x "+chain("b"), "partial;")
		},
		func(s *fixture) error {
			r, err := s.sn.index.Get("default/8/extract-1-x " + chain("b"))
			if err != nil {
				return nil // it is discarded already
			}
			// Discard reports no error if it cannot destroy the runtime; Cleanup does.
			return errors.Join(s.sn.Discard(s.ctx, r.Dataset), s.sn.Cleanup(s.ctx))
		},
	},
}

// cachedAndFull makes a cached layer and then sets the size of the pool so that it is full.
func (s *fixture) cachedAndFull() {
	name, _ := s.pull("default", "", chain("a"), hundred)
	s.remove(name)
	s.flush()
	require.NoError(s, s.makeReady())
	s.pool.Edit(func(state *zfsfake.State) { state.Size = state.Below("tank") })
}

// After a crash during Renew, the extraction has its old content or none, or it does not
// exist.
func TestCrashDuringRenewLeavesOldNewOrNothing(t *testing.T) {
	t.Parallel()
	key := "default/8/extract-1-x " + chain("b")
	for mode, option := range map[string]func(*fixture){"atomic": func(*fixture) {}, "in steps": inSteps, "torn": torn} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			for cut := range zfsfake.Each(t, zfsfake.Before(zfsfake.Transaction)) {
				s := newFixture(t, option)
				s.prepare(key, "")
				s.write(key, "partial;")
				s.cachedAndFull()
				old := s.dataset(key)
				s.pool.FailAt(cut.Point, zfsfake.Crash())
				_, _, err := s.sn.Renew(s.ctx, old, errors.New("full"))
				s.crash()
				content := "missing"
				if now, ok := s.visible()[key]; ok {
					content = now.Content
				}
				if !cut.Reached() {
					require.NoError(t, err)
					assert.Empty(t, content)
				}
				assert.Contains(t, []string{"partial;", "", "missing"}, content, "crash %s", cut)
				s.requireInvariants()
			}
		})
	}
}

// crashModes are what one transaction of the pool is, and what a crash leaves of a log.
var crashModes = map[string]func(*fixture){
	"atomic": func(*fixture) {}, "in steps": inSteps, "torn": torn,
	"with a log":                     withLog,
	"with a log, in steps":           func(s *fixture) { inSteps(s); withLog(s) },
	"with a log, torn":               func(s *fixture) { torn(s); withLog(s) },
	"with a log, less left":          func(s *fixture) { s.pool = zfsfake.New(s, zfsfake.LosesWrites); withLog(s) },
	"with ready runtimes":            withReady,
	"with ready runtimes, torn":      func(s *fixture) { torn(s); withReady(s) },
	"with ready runtimes, less left": func(s *fixture) { s.pool = zfsfake.New(s, zfsfake.LosesWrites); withReady(s) },
}

// makeReady makes a ready runtime of each template, if the fixture has ready runtimes.
func (s *fixture) makeReady() error {
	made := make(map[*index.Template]bool)
	for _, name := range s.names() {
		r, err := s.sn.index.Get(name)
		if err != nil {
			return err
		}
		t := r.Template
		if s.sn.ready.limit == 0 || t == nil || t.IsEmpty() || made[t] {
			continue
		}
		made[t] = true
		if err := s.sn.makeReady(s.ctx, t, 1); err != nil {
			return err
		}
	}
	return nil
}

// makeReadyIfSpace is makeReady, and makes none if there is no space.
func (s *fixture) makeReadyIfSpace() {
	if err := s.makeReady(); !errors.Is(err, zfs.ErrNoSpace) {
		require.NoError(s, err)
	}
}

// After a crash between any two transactions of an operation, or writes of a log, and another
// one between any two of the recovery, the state is the one before or after the operation.
func TestCrashLeavesStateBeforeOrAfter(t *testing.T) {
	t.Parallel()
	for what, c := range crashOperations {
		for mode, option := range crashModes {
			t.Run(what+" "+mode, func(t *testing.T) {
				t.Parallel()
				whole := newFixture(t, option, keepCached(0))
				prepare := func(s *fixture) { c.before(s); s.makeReadyIfSpace() }
				prepare(whole)
				before := whole.visible()
				require.NoError(t, c.do(whole))
				after := whole.visible()
				whole.requireInvariants()
				for _, at := range []zfsfake.Point{zfsfake.Before(zfsfake.Transaction, zfsfake.Step), zfsfake.After(zfsfake.Step)} {
					for cut := range zfsfake.EachOrNone(t, at) {
						crashAt(t, cut, option, prepare, c.do, before, after)
					}
				}
			})
		}
	}
}

// crashAt crashes do at a cut, and the recovery at each of its own cuts.
func crashAt(t *testing.T, cut *zfsfake.Cut, option func(*fixture), prepare func(*fixture), do func(*fixture) error, before, after map[string]model.Snapshot) {
	t.Helper()
	for again := range zfsfake.EachOrNone(t, zfsfake.Before(zfsfake.Transaction, zfsfake.Step)) {
		s := newFixture(t, option, keepCached(0))
		prepare(s)
		s.pool.FailAt(cut.Point, zfsfake.Crash())
		err := do(s)
		if !s.pool.HasCrashed() {
			require.NoError(t, err)
			return
		}
		if err != nil {
			requireCause(t, err, zfsfake.ErrCrashed)
		}
		s.pool = s.pool.AfterCrash()
		end := s.pool.FailAt(again.Point, zfsfake.Crash())
		if s.tryStart() != nil || s.sn.Cleanup(s.ctx) != nil || s.pool.HasCrashed() { // a recovery ignores failures of steps that can wait
			require.True(t, s.pool.HasCrashed(), "only a crash keeps the snapshotter from starting")
			s.crash()
		}
		end()
		got := s.visible()
		if err == nil || !assert.ObjectsAreEqual(before, got) {
			require.Equal(t, after, got, "crash %s, and in the recovery %s: neither before nor after (error: %v)", cut, again, err)
		}
		s.requireInvariants()
		if assert.ObjectsAreEqual(before, got) {
			require.NoError(t, do(s), "the operation succeeds when repeated")
			require.Equal(t, after, s.visible())
			s.requireInvariants()
		}
	}
}

// requireCause requires that an operation failed with an error. If that ended a reclaim, it is in
// the text of an error for lack of space only.
func requireCause(t *testing.T, err, cause error) {
	t.Helper()
	if errdefs.IsResourceExhausted(err) {
		require.ErrorContains(t, err, "failed to reclaim space: ")
		require.ErrorContains(t, err, cause.Error())
		return
	}
	require.ErrorIs(t, err, cause)
}

// A killed command leaves the first ops of its list. Clients then see the state before the
// operation and the daemon continues to work. Its next start shows the state before or
// after the operation.
func TestKilledCommandLeavesStateBeforeOrAfter(t *testing.T) {
	t.Parallel()
	for what, c := range crashOperations {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			whole := newFixture(t, torn, keepCached(0))
			c.before(whole)
			before := whole.visible()
			require.NoError(t, c.do(whole))
			after := whole.visible()
			removes := strings.HasPrefix(what, "remove")
			for cut := range zfsfake.EachOrNone(t, zfsfake.Before(zfsfake.Transaction)) {
				s := newFixture(t, torn, keepCached(0))
				c.before(s)
				end := s.pool.FailAt(cut.Point, zfsfake.Kill())
				err := c.do(s)
				end()
				if err == nil { // it is done, or did not need what was killed
					require.Empty(t, model.Differences(after, s.visible()), "killed %s", cut)
					continue
				}
				requireCause(t, err, zfsfake.ErrKilled)
				if removes { // done in memory; the journal tries it again
					before = after
				}
				require.Empty(t, model.Differences(before, s.visible()), "killed %s", cut)
				s.prepare("another", "")
				s.remove("another")
				s.cleanup()
				require.Empty(t, model.Differences(before, s.visible()), "killed %s", cut)
				if !slices.Contains([]string{"commit", "commit of a layer", "commit that reclaims space"}, what) {
					s.requireInvariants() // the operation is rolled back by now
				}
				s.restart()
				if got := s.visible(); !assert.ObjectsAreEqual(before, got) {
					require.Empty(t, model.Differences(after, got), "killed %s, neither before nor after", cut)
				} else if !removes {
					require.NoError(t, c.do(s), "the operation succeeds when repeated")
					require.Empty(t, model.Differences(after, s.visible()))
				}
				s.requireInvariants()
			}
		})
	}
}

// The residue of a killed commit does not prevent another commit of the same layer under
// another key.
func TestLayerCanBeCommittedAfterKilledCommit(t *testing.T) {
	t.Parallel()
	eachCommitCut(t, func(cut *zfsfake.Cut, responds bool) {
		s := newFixture(t, torn)
		key := "default/8/extract-1-x " + chain("a")
		s.prepare(key, "", ref(chain("a")))
		s.write(key, "a;")
		if s.killCommit(cut, responds, "default/9/"+chain("a"), key) {
			return // the layer exists
		}

		again := "default/10/extract-2-y " + chain("a")
		_, err := s.sn.Prepare(s.ctx, again, "", ref(chain("a")))
		require.NoError(t, err)
		s.write(again, "a;")
		err = s.sn.Commit(s.ctx, "default/11/"+chain("a"), again, ref(chain("a")))
		if assert.NoError(t, err, "killed %s", cut) {
			assert.Equal(t, "a;", s.visible()["default/11/"+chain("a")].Content)
		}
		s.restart()
		s.cleanup()
	})
}

// A start skips a partial dataset that is busy. A later cleanup destroys it.
func TestBusyPartialDatasetIsDestroyedLater(t *testing.T) {
	t.Parallel()
	synctest.Test(t, busyPartialDatasetIsDestroyedLater)
}

func busyPartialDatasetIsDestroyedLater(t *testing.T) {
	s := newFixture(t, inSteps)
	s.prepare("web", "")
	s.write("web", "w;")
	s.pool.FailAt(zfsfake.After(zfsfake.Clone), zfsfake.Crash())
	require.ErrorIs(t, s.sn.Commit(s.ctx, "saved", "web"), zfsfake.ErrCrashed)
	s.pool = s.pool.AfterCrash()
	partial := s.templates()[1]
	s.pool.Edit(func(state *zfsfake.State) { state.Mounted[partial] = true })
	s.start()
	assert.Contains(t, s.log.String(), "failed to destroy residue of interrupted commit")
	assert.Equal(t, []string{"web"}, s.names())
	s.cleanup()
	assert.Contains(t, s.datasets(), partial)

	s.pool.Edit(func(state *zfsfake.State) { clear(state.Mounted) })
	s.waitForRetries()
	assert.NotContains(t, s.datasets(), partial)
	s.commit("saved", "web")
	assert.Equal(t, "w;", s.visible()["saved"].Content)
	s.requireInvariants()
}
