package snapshotter

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/model"
	"github.com/zfstpl/zfstpl/snapshotter/space"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
	"github.com/zfstpl/zfstpl/snapshotter/zfs/zfsfake"
)

// run performs random operations on a snapshotter and on its model.
type run struct {
	*fixture
	m *model.Model
	r *rand.Rand
	n int

	own    string // prefix of the keys that collide
	digits string // the layers that it uses
	beside bool   // other runs are active, and the test injects the errors
}

func newModel(keepCached bool) *model.Model {
	return model.New(model.Config{KeepCached: keepCached, ReuseLabel: ReuseLabel})
}

// After each of a few hundred random operations, errors, restarts and crashes, the
// snapshotter shows the same snapshots as the model. The test logs the seed.
func TestSnapshotterMatchesModel(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		keep   bool
		option func(*fixture)
	}{
		"cached, atomic":       {true, func(*fixture) {}},
		"cached, in steps":     {true, inSteps},
		"not cached, atomic":   {false, keepCached(0)},
		"not cached, in steps": {false, func(s *fixture) { s.keep = 0; inSteps(s) }},

		"cached, atomic, with a log":              {true, withLog},
		"cached, in steps, with ready runtimes":   {true, func(s *fixture) { inSteps(s); withReady(s) }},
		"not cached, atomic, with ready runtimes": {false, func(s *fixture) { s.keep = 0; withReady(s) }},

		"not cached, in steps, with a log": {false, func(s *fixture) { s.keep = 0; inSteps(s); withLog(s) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			// In a bubble no timer fires between two operations, so the journal is
			// written only when the test does it.
			synctest.Test(t, func(t *testing.T) {
				x := &run{fixture: newFixture(t, c.option), m: newModel(c.keep), r: rand.New(rand.NewPCG(seed, 0)), digits: "abcd"}
				for x.n = range 500 {
					what := x.step()
					require.Empty(t, model.Differences(x.m.Visible(), x.visible()), "after operation %d: %s (seed %d)", x.n, what, seed)
					x.requireSamePlans()
				}
			})
		})
	}
}

// requireSamePlans asserts that the nodes that PlanNodes omits change no plan.
func (x *run) requireSamePlans() {
	x.Helper()
	now := time.Now()
	all, some := x.sn.index.Nodes(), x.sn.index.PlanNodes()
	for _, policy := range []space.Policy{{}, {Retry: true, MaxBytes: 1}, {Keep: space.Forever, All: true}, {Keep: time.Hour, CachedOnly: true}} {
		require.Equal(x, space.NewPlan(all, nil, policy, now), space.NewPlan(some, nil, policy, now), "%+v", policy)
	}
}

// pick returns the name of a random snapshot, or a name that does not exist.
func (x *run) pick() string {
	names := append(x.m.Names(), x.own+"missing")
	return names[x.r.IntN(len(names))]
}

// committed returns a random parent: mostly a committed snapshot or "", sometimes any.
func (x *run) committed() string {
	if x.r.IntN(10) == 0 {
		return x.pick()
	}
	names := append([]string{""}, x.m.Names(snapshots.KindCommitted)...)
	return names[x.r.IntN(len(names))]
}

func (x *run) labels() map[string]string {
	if x.r.IntN(2) == 0 {
		return nil
	}
	labels := map[string]string{"n": fmt.Sprint(x.n)}
	if x.r.IntN(5) == 0 {
		labels["long"] = fmt.Sprintf("%09000d", x.n)
	}
	return labels
}

func (x *run) layerID() string { return chain(string(x.digits[x.r.IntN(4)])) }

func (x *run) key() string {
	switch x.r.IntN(4) {
	case 0:
		return x.own + string("xyz"[x.r.IntN(3)]) // other operations use it too
	case 1:
		return x.backend("default", "web")
	default:
		return x.backend("default", "extract-1-x "+x.layerID())
	}
}

// step performs one random operation on the snapshotter and the model, and compares their
// results. It returns a description.
func (x *run) step() string {
	x.Helper()
	if x.sn.config.Ready > 0 && x.r.IntN(5) == 0 {
		x.refilled()
		x.m.Restart() // the journal is written meanwhile
	}
	if x.m.Len() > 30 {
		return x.removeSome()
	}
	switch x.r.IntN(20) {
	case 0, 1, 2, 3, 4:
		return x.create(snapshots.KindActive, x.key(), x.committed(), x.labels())
	case 5:
		return x.create(snapshots.KindView, x.key(), x.committed(), x.labels())
	case 6, 7, 8, 9, 10:
		return x.commitOne()
	case 11, 12, 13:
		return x.removeSome()
	case 14:
		return x.updateOne()
	case 15:
		x.cleanup()
		x.m.Cleanup()
		x.requireInvariants()
		require.Len(x, x.datasets(), x.m.Datasets(), "operation %d", x.n)
		return "cleanup"
	case 16:
		x.restart()
		x.m.Restart()
		return "restart"
	case 17:
		if x.sn.journal.HasLog() { // a removal may be durable already, with another change
			require.NoError(x, x.sn.journal.Settle(x.ctx, true))
			x.m.Restart()
		}
		x.crash()
		x.m.Crash()
		return "crash"
	default:
		key := x.pick()
		if s, ok := x.m.Get(key); ok && s.Kind == snapshots.KindActive {
			text := fmt.Sprintf("%d;", x.n)
			x.write(key, text)
			x.m.Write(key, text)
		}
		return "write to " + key
	}
}

// both requires the same kind of error from do and predict. Every tenth time the pool is out
// of space. If only the first transaction fails, the snapshotter evicts cached templates
// and tries again. If all fail, nothing changes.
func (x *run) both(what string, do, predict func() error) string {
	x.Helper()
	if x.beside {
		got := do()
		if !errors.Is(got, errdefs.ErrPermissionDenied) { // the injected error
			require.Equal(x, predict(), model.ErrorKind(got), "operation %d: %s", x.n, what)
		}
		return what
	}
	once, end := x.r.IntN(2) == 0, func() bool { return false }
	if x.r.IntN(10) == 0 {
		at, limits := zfsfake.Before(zfsfake.Apply, zfsfake.Destroy), []zfsfake.Limit{zfsfake.Optional()}
		if once {
			at, limits = zfsfake.Before(zfsfake.Apply), append(limits, zfsfake.Once())
		}
		end = x.pool.FailAt(at, zfsfake.Refuse(zfs.ErrNoSpace), limits...)
	}
	got := do()
	failed := end()
	var want error = errdefs.ErrResourceExhausted
	if !failed || once {
		want = predict()
	}
	if failed && once {
		x.m.Reclaim()
	}
	require.Equal(x, want, model.ErrorKind(got), "operation %d: %s", x.n, what)
	return what
}

func (x *run) create(kind snapshots.Kind, key, parent string, labels map[string]string) string {
	if kind == snapshots.KindActive && x.r.IntN(2) == 0 {
		labels = maps.Clone(labels)
		if labels == nil {
			labels = make(map[string]string)
		}
		labels[snapshots.LabelSnapshotRef] = x.layerID()
		if mode := []ReuseMode{"", ReuseFetch, ReuseOff}[x.r.IntN(3)]; mode != "" {
			labels[ReuseLabel] = string(mode)
		}
	}
	return x.both(fmt.Sprintf("%s %q on %q", kind, key, parent), func() error {
		create := x.sn.Prepare
		if kind == snapshots.KindView {
			create = x.sn.View
		}
		return second(create(x.ctx, key, parent, snapshots.WithLabels(labels)))
	}, func() error { return x.m.Create(kind, key, parent, labels) })
}

func (x *run) commitOne() string {
	key, name := x.pick(), x.backend("default", "saved")
	if target := x.m.Target(key); target != "" && x.r.IntN(4) > 0 {
		name = x.backend("default", target)
	}
	if x.r.IntN(10) == 0 {
		name = x.pick()
	}
	labels := x.labels()
	return x.both(fmt.Sprintf("commit of %q as %q", key, name), func() error {
		return x.sn.Commit(x.ctx, name, key, snapshots.WithLabels(labels))
	}, func() error { return x.m.Commit(name, key, labels) })
}

func (x *run) removeSome() string {
	what := "remove"
	for range 1 + x.r.IntN(3) {
		key := x.pick()
		what += fmt.Sprintf(" %q", key)
		require.Equal(x, x.m.Remove(key), model.ErrorKind(x.sn.Remove(x.ctx, key)), "operation %d: %s", x.n, what)
	}
	return what
}

func (x *run) updateOne() string {
	name, labels := x.pick(), x.labels()
	var fields []string
	if x.r.IntN(2) == 0 {
		fields = []string{"labels.n"}
	}
	return x.both(fmt.Sprintf("update of %q", name), func() error {
		return second(x.sn.Update(x.ctx, snapshots.Info{Name: name, Labels: labels}, fields...))
	}, func() error { return x.m.Update(name, labels, fields...) })
}

// Several goroutines with separate names and layers run at the same time, and calls to the
// pool fail. After each step the snapshotter shows the snapshots of all models together.
func TestSnapshotterMatchesConcurrentModels(t *testing.T) {
	t.Parallel()
	for name, option := range map[string]func(*fixture){"atomic": func(*fixture) {}, "in steps": inSteps, "with a log": withLog} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			synctest.Test(t, func(t *testing.T) {
				s := newFixture(t, option)
				var all []*run
				for i, digits := range []string{"0123", "4567", "89ab", "cdef"} {
					own := *s
					own.n = 1000 * (i + 1)
					all = append(all, &run{fixture: &own, m: newModel(true), r: rand.New(rand.NewPCG(seed, uint64(i))),
						own: digits, digits: digits, beside: true})
				}
				r := rand.New(rand.NewPCG(seed, 9))
				for n := range 250 {
					s.stepTogether(all, r, n)
					want := make(map[string]model.Snapshot)
					for _, x := range all {
						maps.Copy(want, x.m.Visible())
					}
					require.Empty(t, model.Differences(want, s.visible()), "after step %d (seed %d)", n, seed)
					require.Empty(t, heldLocks(s.sn), "all locks are released")
				}
			})
		})
	}
}

// stepTogether performs one step of each run at the same time. Sometimes it performs a
// cleanup or a restart instead.
func (s *fixture) stepTogether(all []*run, r *rand.Rand, n int) {
	s.Helper()
	switch r.IntN(12) {
	case 0:
		s.cleanup()
		s.requireInvariants()
		want := 1 // the empty template is shared
		for _, x := range all {
			x.m.Cleanup()
			want += x.m.Datasets() - 1
		}
		require.Len(s, s.datasets(), want, "step %d", n)
		return
	case 1:
		s.restart()
		for _, x := range all {
			x.sn = s.sn
			x.m.Restart()
		}
		return
	}
	if fails := r.IntN(3); fails > 0 {
		defer s.pool.FailAt(zfsfake.Before(zfsfake.Apply), zfsfake.Refuse(zfs.ErrPermission), zfsfake.Every(1+fails), zfsfake.Optional())()
	}
	var together sync.WaitGroup
	for _, x := range all {
		x.n = n
		together.Go(func() { x.separateStep() })
	}
	together.Wait()
}

// separateStep performs one random operation that does not affect other runs.
func (x *run) separateStep() {
	switch n := x.r.IntN(12); {
	case n < 5:
		x.create(snapshots.KindActive, x.key(), x.committed(), x.labels())
	case n < 6:
		x.create(snapshots.KindView, x.key(), x.committed(), x.labels())
	case n < 9:
		x.commitOne()
	case n < 11 || x.m.Len() > 12:
		x.removeSome()
	default:
		x.updateOne()
	}
}

// Several goroutines use the same and different names at the same time. The result is not
// predictable, but the invariants hold and the index matches the pool.
func TestConcurrentOperationsKeepInvariants(t *testing.T) {
	t.Parallel()
	for name, option := range map[string]func(*fixture){"atomic": func(*fixture) {}, "in steps": inSteps, "with a log": withLog} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			s := newFixture(t, option, keepCached(0))
			var wait sync.WaitGroup
			for worker := range 8 {
				wait.Go(func() {
					r := rand.New(rand.NewPCG(seed, uint64(worker)))
					for i := range 150 {
						s.anything(r, fmt.Sprintf("default/%d%03d/", worker+1, i))
					}
				})
			}
			wait.Wait()
			assert.Empty(t, heldLocks(s.sn), "all locks are released")
			s.requireInvariants()
			for len(s.walk()) > 0 {
				for _, info := range s.walk() {
					if err := s.sn.Remove(s.ctx, info.Name); err != nil {
						require.ErrorIs(t, err, errdefs.ErrFailedPrecondition)
					}
				}
			}
			s.requireInvariants()
			assert.Len(t, s.datasets(), 1)
		})
	}
}

// anything performs a random operation on names that other goroutines use too. It allows
// only errors with an errdefs kind of the contract.
func (s *fixture) anything(r *rand.Rand, prefix string) {
	any := func(names ...string) string { return names[r.IntN(len(names))] }
	id := chain(any("a", "b"))
	key := any("x", "y", "z", prefix+"own")
	name := any("p", "q", prefix+id)
	parent := any("", "p", "q")
	var err error
	switch r.IntN(9) {
	case 0:
		_, err = s.sn.Prepare(s.ctx, key, parent)
	case 1:
		_, err = s.sn.Prepare(s.ctx, prefix+"extract-1-x "+id, parent, ref(id))
	case 2:
		_, err = s.sn.View(s.ctx, key, parent)
	case 3:
		err = s.sn.Commit(s.ctx, name, any(key, prefix+"extract-1-x "+id), ref(id))
	case 4:
		err = s.sn.Remove(s.ctx, any(key, name))
	case 5:
		_, err = s.sn.Update(s.ctx, snapshots.Info{Name: any(key, name), Labels: map[string]string{"a": prefix}})
	case 6:
		_, err = s.sn.Usage(s.ctx, any(key, name))
	case 7:
		for _, info := range s.walk() {
			_, err = s.sn.Mounts(s.ctx, info.Name)
		}
	case 8:
		if err := s.sn.Cleanup(s.ctx); err != nil {
			s.Errorf("cleanup: %v", err)
		}
	}
	if !model.HasKind(err) {
		s.Errorf("error without a kind: %v", err)
	}
}
