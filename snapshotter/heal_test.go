package snapshotter

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// restoredOnce is what the log has of each restored record.
const restoredMessage = "restored record of lost layer"

// image pulls layers with these contents, and returns their names, bottom first. Their
// templates say from which layers they were unpacked.
func (s *fixture) image(namespace string, contents ...string) []string {
	s.Helper()
	var names []string
	parent, id := "", ""
	for _, content := range contents {
		diffID := digest.FromString(content)
		id = layout.ChainID(id, diffID.String())
		parent, _ = s.pull(namespace, parent, id, content)
		s.setDiffID(parent, diffID)
		names = append(names, parent)
	}
	return names
}

// prove has a layer's template say from which layer it was unpacked, in the pool and in
// the index.
func (s *fixture) setDiffID(name string, diffID digest.Digest) {
	s.Helper()
	dataset := s.templateOf(name)
	s.pool.editFS(dataset, func(fs *fakeFS) {
		fs.props[propDiffID] = diffID.String()
		if diffID == "" {
			delete(fs.props, propDiffID)
		}
	})
	s.sn.index.mu.Lock()
	defer s.sn.index.mu.Unlock()
	s.sn.index.templates[dataset].from.diffID = diffID
}

// layerOf is the chain ID in a layer's name.
func chainIDOf(name string) string { return layout.ClientName(name) }

// lose takes records out of the pool while no snapshotter runs.
func (s *fixture) loseRecords(names ...string) {
	s.Helper()
	datasets := make(map[string][]string) // and the properties to take away
	for _, name := range names {
		r, err := s.sn.index.get(name)
		require.NoError(s, err)
		datasets[r.dataset] = append(datasets[r.dataset], r.props...)
	}
	require.NoError(s, s.sn.Close())
	for dataset, props := range datasets {
		s.pool.editFS(dataset, func(fs *fakeFS) {
			for _, prop := range props {
				require.Contains(s, fs.props, prop)
				delete(fs.props, prop)
			}
		})
	}
	s.start()
}

// restorations counts the records that were restored.
func (s *fixture) restorations() int { return strings.Count(s.log.String(), restoredMessage) }

// healing are the methods that restore the record of a layer, each with the name of one
// and a key that is free.
var healOps = map[string]func(s *fixture, name, key string) error{
	"prepare": func(s *fixture, name, key string) error { return second(s.sn.Prepare(s.ctx, key, name)) },
	"view":    func(s *fixture, name, key string) error { return second(s.sn.View(s.ctx, key, name)) },
	"stat":    func(s *fixture, name, _ string) error { return second(s.sn.Stat(s.ctx, name)) },
	"usage":   func(s *fixture, name, _ string) error { return second(s.sn.Usage(s.ctx, name)) },
	"update": func(s *fixture, name, _ string) error {
		return second(s.sn.Update(s.ctx, snapshots.Info{Name: name}, "labels.a"))
	},
}

// containerd knows a layer of which the pool has lost the record. Whatever it asks
// first, the record is there again, also after the next start.
func TestLostRecordIsRestored(t *testing.T) {
	t.Parallel()
	for what, heal := range healOps {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			for _, mode := range []func(*fixture){func(*fixture) {}, inSteps} {
				s := newFixture(t, mode)
				names := s.image("default", "a;", "b;", "c;")
				s.loseRecords(names[1])
				require.NotContains(t, s.names(), names[1])

				require.NoError(t, heal(s, names[1], "default/80/web"))
				info := s.stat(names[1])
				assert.Equal(t, snapshots.KindCommitted, info.Kind)
				assert.Empty(t, info.Parent, "containerd's name of it is not known")
				assert.Empty(t, info.Labels)
				assert.Equal(t, "a;b;", s.visible()[names[1]].Content)
				assert.Equal(t, 1, s.restorations(), "one line for each")
				assert.Contains(t, s.log.String(), "level=warning")
				assert.Contains(t, s.log.String(), `template="`+s.templateOf(names[1])+`"`)
				assert.Contains(t, s.log.String(), `snapshot="`+names[1]+`"`)
				s.requireInvariants()
				before := s.visible()
				for i, again := range []func(){s.restart, s.crash} {
					again()
					assert.Equal(t, before, s.visible())
					require.NoError(t, heal(s, names[1], s.backend("default", "again")))
					before = s.visible()
					assert.Equal(t, 1, s.restorations(), "once, %d", i)
				}
			}
		})
	}
}

// Another containerd collected everything. The first one runs, pulls, unpacks and
// collects as if nothing had happened.
func TestAllLostRecordsAreRestored(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	names := s.image("default", "a;", "b;", "c;")
	s.remove(names[2], names[1], names[0])
	s.cleanup()
	s.with = func(c *Config) { c.CacheKeep = 0 }
	require.Empty(t, s.names())

	s.prepare("default/80/web", names[2])
	assert.Equal(t, "a;b;c;", s.visible()["default/80/web"].Content, "an image runs")
	for _, name := range names { // containerd's database says AlreadyExists, and the unpacker looks
		assert.Equal(t, name, s.stat(name).Name)
	}
	assert.Equal(t, 3, s.restorations())
	other, unpacked := s.pull("default", names[1], layout.ChainID(chainIDOf(names[1]), digest.FromString("d;").String()), "d;")
	assert.True(t, unpacked, "a layer of another image")
	assert.Equal(t, "a;b;d;", s.visible()[other].Content)
	assert.Equal(t, names[1], s.stat(other).Parent)
	s.requireInvariants()

	s.remove("default/80/web", names[2])
	require.ErrorIs(t, s.sn.Remove(s.ctx, names[1]), errdefs.ErrFailedPrecondition, "the other stands on it")
	s.remove(names[0])
	s.restart()
	s.cleanup()
	assert.Equal(t, "a;b;d;", s.visible()[other].Content, "what others need stays")
	s.remove(other, names[1])
	s.cleanup()
	assert.Len(t, s.datasets(), 1, "everything is collected")
	s.requireInvariants()
}

// An unpacker asks for a layer whose parent's record is lost.
func TestLayerIsReusedOnRestoredParent(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	names := s.image("default", "a;", "b;")
	s.loseRecords(names...)
	top, unpacked := s.pull("default", names[0], chainIDOf(names[1]), "")
	assert.False(t, unpacked)
	assert.Equal(t, "a;b;", s.visible()[top].Content)
	assert.Equal(t, names[0], s.stat(top).Parent)
	assert.Equal(t, 1, s.restorations())
	s.requireInvariants()
}

// Any number of callers restore a record once.
func TestConcurrentCallersRestoreRecordOnce(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	names := s.image("default", "a;")
	s.loseRecords(names...)
	var all sync.WaitGroup
	for i := range 4 {
		for what, heal := range healOps {
			all.Go(func() {
				assert.NoError(t, heal(s, names[0], s.base.String()+what+strings.Repeat("x", i)))
			})
		}
	}
	all.Wait()
	assert.Equal(t, 1, s.restorations())
	assert.Empty(t, heldLocks(s.sn))
	s.requireInvariants()
}

// A name proves nothing. A record is restored only when what the pool says of the
// template gives the chain ID.
func TestUnprovenLayerIsNotRestored(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		make func(s *fixture) (lost string)
		says string
	}{
		"no template": {func(s *fixture) string {
			lost := s.image("default", "a;")[0]
			s.remove(lost)
			s.keep = 0
			s.restart()
			s.cleanup()
			return lost
		}, "is not in the pool"},
		"no diff ID":                 {func(s *fixture) string { return s.imageWithDiffID("") }, "has no property zfstpl:diff-id"},
		"no digest":                  {func(s *fixture) string { return s.imageWithDiffID("sha256:12") }, "has no property zfstpl:diff-id"},
		"another layer":              {func(s *fixture) string { return s.imageWithDiffID(digest.FromString("other;")) }, "has no property zfstpl:diff-id"},
		"on another layer":           {(*fixture).layerOnWrongParent, "has no property zfstpl:diff-id"},
		"on a commit of a container": {(*fixture).layerOnCommit, "is not in the pool"},
		"on another namespace's":     {(*fixture).layerOnOwnedLayer, "is not in the pool"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := newFixture(t)
			lost := c.make(s)
			if slices.Contains(s.names(), lost) {
				s.loseRecords(lost)
			}
			txg := s.txg()
			for how, heal := range healOps {
				err := heal(s, lost, "default/80/web")
				require.ErrorIs(t, err, errdefs.ErrNotFound, how)
				assert.ErrorContains(t, err, c.says, how)
				assert.ErrorContains(t, err, lost, how)
				assert.ErrorContains(t, err, "tank/z/storage/"+chainIDOf(lost), how)
				for _, command := range []string{"ctr images rm --sync", "crictl rmi", "docker rmi"} {
					assert.ErrorContains(t, err, command, how)
				}
			}
			assert.Equal(t, txg, s.txg(), "nothing is written")
			assert.NotContains(t, s.names(), lost)
			assert.Zero(t, s.restorations())
			assert.Empty(t, heldLocks(s.sn))
		})
	}
}

// falseImage is an image whose upper layer's template says that it comes from another.
func (s *fixture) imageWithDiffID(diffID digest.Digest) string {
	s.Helper()
	names := s.image("default", "a;", "b;")
	s.setDiffID(names[1], diffID)
	return names[1]
}

// layerElsewhere is a layer that claims the chain ID of b on a, and stands on nothing.
func (s *fixture) layerOnWrongParent() string {
	s.Helper()
	a, b := digest.FromString("a;"), digest.FromString("b;")
	name, _ := s.pull("default", "", layout.ChainID(a.String(), b.String()), "b;")
	s.setDiffID(name, b)
	return name
}

// layerOnCommit is a layer on what a container's commit made, which only its owner can
// name. Its own diff ID and its origin fit.
func (s *fixture) layerOnCommit() string {
	s.Helper()
	s.layer("default/70/saved", "", "private;")
	return s.twoLayersOn("default/70/saved")
}

// layerOnOwn is a layer for everybody on one that was its namespace's own.
func (s *fixture) layerOnOwnedLayer() string {
	s.Helper()
	s.with = ownTemplates
	s.restart()
	private := s.image("zoo", "private;")[0]
	s.with = nil
	s.restart()
	return s.twoLayersOn(private)
}

// layersOn pulls two layers on a snapshot, and returns the upper one's name.
func (s *fixture) twoLayersOn(parent string) string {
	s.Helper()
	x, y := digest.FromString("x;"), digest.FromString("y;")
	below, _ := s.pull("default", parent, x.String(), "x;")
	top, _ := s.pull("default", below, layout.ChainID(x.String(), y.String()), "y;")
	s.setDiffID(top, y)
	return top
}

func (s *fixture) txg() uint64 {
	var txg uint64
	s.pool.edit(func(state *fakeState) { txg = state.txg })
	return txg
}

// A name that containerd does not make of a layer is not there, as ever.
func TestOnlyLayerNamesAreRestored(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.image("default", "a;")
	id := digest.FromString("a;").String()
	for _, name := range []string{
		id, "default/" + id, "default/0/" + id, "default/07/" + id, "default/x/" + id, "a b/7/" + id, "/7/" + id,
		"default/7/" + id + "\n", "default/7/extract-1-x " + id, "default/7/8/" + id,
	} {
		for how, heal := range healOps {
			err := heal(s, name, "default/80/web")
			require.ErrorIs(t, err, errdefs.ErrNotFound, "%s of %q", how, name)
			assert.NotContains(t, err.Error(), "crictl", "%s of %q", how, name)
		}
	}
	assert.Zero(t, s.restorations())
}

// With templates of their own no namespace gets what another pulled, whatever name it
// makes up; its own it gets.
func TestRestoreRevealsNoLayerOfAnotherNamespace(t *testing.T) {
	t.Parallel()
	s := newFixture(t, settings(ownTemplates))
	mine := s.image("default", "secret;", "b;")
	asked := func(namespace string) *fixture {
		other := *s
		if namespace != "" {
			other.ctx = namespaces.WithNamespace(s.ctx, namespace)
		}
		return &other
	}
	s.loseRecords(mine...)
	for how, heal := range healOps {
		for _, name := range mine {
			err := heal(s, "zoo/7/"+chainIDOf(name), "zoo/80/web")
			require.ErrorIs(t, err, errdefs.ErrNotFound, how)
			// It says the same of a layer that is nowhere.
			unknown := digest.FromString("unknown").String()
			nowhere := heal(s, "zoo/7/"+unknown, "zoo/80/web")
			assert.Equal(t, strings.ReplaceAll(nowhere.Error(), unknown, chainIDOf(name)), err.Error(), "of a layer that is nowhere it says the same")
			require.ErrorIs(t, heal(asked("zoo"), name, "zoo/80/web"), errdefs.ErrNotFound, "%s: the caller says who it is", how)
		}
	}
	require.Zero(t, s.restorations())
	for _, namespace := range []string{"", "default"} {
		for _, name := range mine {
			require.NoError(t, healOps["stat"](asked(namespace), name, ""))
		}
		assert.Equal(t, "secret;b;", s.visible()[mine[1]].Content)
		s.loseRecords(mine...)
	}

	// What was pulled while layers were not shared is not shared later.
	s.with = nil
	s.restart()
	for how, heal := range healOps {
		require.ErrorIs(t, heal(s, mine[0], "default/80/web"), errdefs.ErrNotFound, how)
	}
	// And what was shared is of no namespace afterwards.
	shared := s.image("default", "shared;")[0]
	s.loseRecords(shared)
	isolated := *s
	isolated.ctx = WithOwnTemplates(s.ctx)
	require.ErrorIs(t, healOps["view"](&isolated, shared, "default/80/web"), errdefs.ErrNotFound, "containerd isolates its namespaces")
	s.with = ownTemplates
	s.restart()
	require.ErrorIs(t, healOps["view"](s, shared, "default/80/web"), errdefs.ErrNotFound)
}

// A snapshot whose parent was lost has it again, at once and at the next start.
func TestChildrenGetRestoredParent(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	names := s.image("default", "a;", "b;")
	s.prepare("default/80/web", names[0])
	s.prepare("default/81/extract-1-x "+chain("c"), names[0])
	s.loseRecords(names[0])
	children := []string{names[1], "default/80/web", "default/81/extract-1-x " + chain("c")}
	for _, key := range children {
		require.Empty(t, s.stat(key).Parent, "so that containerd can remove it")
	}
	// What changes them meanwhile does not make them forget.
	require.NoError(t, second(s.sn.Update(s.ctx, snapshots.Info{Name: "default/80/web", Labels: map[string]string{"a": "b"}})))
	s.commit("default/82/"+chain("c"), children[2])
	children[2] = "default/82/" + chain("c")
	s.restart()
	for _, key := range children {
		require.Empty(t, s.stat(key).Parent)
	}

	s.stat(names[0])
	for _, again := range []func(){func() {}, s.restart, s.crash} {
		again()
		for _, key := range children {
			assert.Equal(t, names[0], s.stat(key).Parent)
		}
		require.ErrorIs(t, s.sn.Remove(s.ctx, names[0]), errdefs.ErrFailedPrecondition)
	}
	assert.Equal(t, 1, s.restorations())
	s.remove(children...)
	s.remove(names[0])
	s.requireInvariants()
}

// A snapshot that is being changed while its parent's record is restored has the parent
// at the next start; nothing waits for it, and nothing is counted twice.
func TestLockedChildGetsRestoredParentAtNextStart(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	names := s.image("default", "a;")
	s.prepare("default/80/web", names[0])
	s.loseRecords(names[0])
	unlock, err := s.sn.keys.lock(s.ctx, "default/80/web")
	require.NoError(t, err)
	s.stat(names[0])
	unlock()
	assert.Empty(t, s.stat("default/80/web").Parent)
	s.restart()
	assert.Equal(t, names[0], s.stat("default/80/web").Parent)
	s.remove("default/80/web", names[0])
	s.requireInvariants()
}

// containerd looked a name up, collected the snapshot, and then asks for it: the record
// is not lost, it was removed. A Prepare on the name comes from a database that has it.
func TestReadDoesNotRestorePendingRemoval(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	names := s.image("default", "a;")
	release := s.sn.journal.pause()
	s.remove(names...)
	for _, how := range []string{"stat", "usage"} {
		require.ErrorIs(t, healOps[how](s, names[0], ""), errdefs.ErrNotFound, how)
	}
	assert.Zero(t, s.restorations())
	require.NoError(t, healOps["prepare"](s, names[0], "default/80/web"))
	assert.Equal(t, 1, s.restorations())
	release()
	s.requireInvariants()
	s.crash()
	assert.Equal(t, names[0], s.stat("default/80/web").Parent, "the removal was of the old record")
	s.requireInvariants()
}

// A Remove that comes while a record is restored takes it away in the end, and one that
// waits for another operation hides the record, which is not restored over it.
func TestRemoveDuringRestoreWins(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t)
		names := s.image("default", "a;")
		template := s.templateOf(names[0])
		s.loseRecords(names...)
		unlock, err := s.sn.datasets.lock(s.ctx, template)
		require.NoError(t, err)
		done := make(chan error, 1)
		go func() { done <- second(s.sn.Stat(s.ctx, names[0])) }()
		synctest.Wait() // it has the name, and waits for the template
		s.remove(names[0])
		unlock()
		<-done
		synctest.Wait()
		assert.Empty(t, s.names())
		s.requireInvariants()

		s.stat(names[0])
		unlock, err = s.sn.keys.lock(s.ctx, names[0])
		require.NoError(t, err)
		s.remove(names[0])
		for range 3 {
			go func() { done <- second(s.sn.Stat(s.ctx, names[0])) }()
		}
		synctest.Wait() // they wait for the name
		release := s.sn.journal.pause()
		unlock()
		for range 3 {
			require.ErrorIs(t, <-done, errdefs.ErrNotFound)
		}
		assert.Equal(t, 2, s.restorations())
		s.prepare("default/80/prepare", names[0])
		assert.Equal(t, 3, s.restorations())
		release()
		s.requireInvariants()
		s.remove("default/80/prepare")
		s.remove(names[0])
		s.requireInvariants()
		assert.Len(t, s.sn.index.templates, 2)
		assert.Zero(t, s.sn.index.templates[template].records)
	})
}

// To remove what is lost succeeds, writes nothing and restores nothing.
func TestRemoveOfLostRecordWritesNothing(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	names := s.image("default", "a;")
	s.loseRecords(names...)
	txg := s.txg()
	s.remove(names...)
	require.NoError(t, s.sn.journal.flush(s.ctx))
	assert.Equal(t, txg, s.txg())
	assert.Zero(t, s.restorations())
}

// A pool that takes no record does not hide the snapshots that are there: a look says
// that the lost one is not found, and why. What needs the layer gets the pool's error.
func TestFailedRestoreIsNotFoundForReads(t *testing.T) {
	t.Parallel()
	refusal := &zfs.Error{Op: "set", Dataset: "tank/z", Kind: zfs.ErrSuspended}
	s := newFixture(t)
	names := s.image("default", "a;")
	s.loseRecords(names...)
	s.pool.interrupt(func(call string) error {
		if call == "apply" {
			return refusal
		}
		return nil
	})
	for how, heal := range healOps {
		err := heal(s, names[0], "default/80/web")
		if how == "stat" || how == "usage" {
			require.ErrorIs(t, err, errdefs.ErrNotFound, how)
			require.NotErrorIs(t, err, errdefs.ErrUnavailable, how)
		} else {
			require.ErrorIs(t, err, errdefs.ErrUnavailable, how)
		}
		assert.ErrorContains(t, err, "suspended", how)
	}
	s.pool.interrupt(nil)
	s.stat(names[0])
	assert.Equal(t, 1, s.restorations())
	s.requireInvariants()
}

// A look evicts nothing to make room for a record; a Prepare may.
func TestOnlyWritesReclaimSpaceForRestoredRecord(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	names := s.image("default", "a;")
	cached, _ := s.pull("default", "", chain("b"), hundred)
	s.remove(cached)
	s.loseRecords(names...)
	var roomy atomic.Bool
	s.pool.interrupt(func(call string) error {
		switch {
		case call == "destroy":
			roomy.Store(true)
		case call == "apply" && !roomy.Load():
			return &zfs.Error{Op: "set", Dataset: s.base.Storage(), Kind: zfs.ErrNoSpace}
		}
		return nil
	})
	require.ErrorIs(t, second(s.sn.Stat(s.ctx, names[0])), errdefs.ErrNotFound)
	assert.Len(t, s.templates(), 3)
	s.prepare("default/80/web", names[0])
	assert.Len(t, s.templates(), 2, "the cached one went")
	s.pool.interrupt(nil)
	s.requireInvariants()
}

// A caller that gives up gets the error of its context, and the record is whole or not there.
func TestCancelledRestoreChangesNothing(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	names := s.image("default", "a;")
	s.loseRecords(names...)
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	_, err := s.sn.Stat(ctx, names[0])
	require.ErrorIs(t, err, context.Canceled)
	_, err = s.sn.Prepare(ctx, "default/80/web", names[0])
	require.ErrorIs(t, err, context.Canceled)
	assert.Zero(t, s.restorations())
	s.stat(names[0])
	require.NoError(t, s.sn.Close())
	_, err = s.sn.Stat(s.ctx, names[0])
	require.ErrorIs(t, err, errdefs.ErrUnavailable)
}

// The cached template was destroyed by another program: the record is not restored, and
// the template is forgotten.
func TestRecordOfMissingTemplateIsNotRestored(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	names := s.image("default", "a;")
	dataset := s.templateOf(names[0])
	s.loseRecords(names...)
	s.pool.edit(func(state *fakeState) {
		maps.DeleteFunc(state.fs, func(name string, _ fakeFS) bool { return name == dataset })
	})
	for range 2 {
		_, err := s.sn.View(s.ctx, "default/80/look", names[0])
		require.ErrorIs(t, err, errdefs.ErrNotFound)
		assert.ErrorContains(t, err, dataset)
		assert.ErrorContains(t, err, "docker rmi")
	}
	_, unpacked := s.pull("default", "", digest.FromString("a;").String(), "a;")
	assert.True(t, unpacked)
	s.requireInvariants()
}
