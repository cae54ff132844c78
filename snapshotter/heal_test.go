package snapshotter

import (
	"strings"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/internal/record"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs/zfsfake"
)

// restoredMessage is the log message for each restored record.
const restoredMessage = "restored record of lost layer"

// image pulls an image of layers with the given contents, lowest first, and returns their
// names. The provenance of their templates is known.
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

// setDiffID sets the diff ID of a layer's template, in the pool and in the index. It removes
// the property if DiffID is empty.
func (s *fixture) setDiffID(name string, diffID digest.Digest) {
	s.Helper()
	dataset := s.templateOf(name)
	s.pool.EditFS(dataset, func(fs *zfsfake.FS) {
		fs.Props[record.DiffIDProperty] = diffID.String()
		if diffID == "" {
			delete(fs.Props, record.DiffIDProperty)
		}
	})
	t := s.sn.index.Template(dataset)
	from := t.From
	from.DiffID = diffID
	s.sn.index.SetProvenance(t, from)
}

// chainIDOf returns the chain ID in a layer's name.
func chainIDOf(name string) string { return layout.ClientName(name) }

// loseRecords restarts the snapshotter and removes records from the pool meanwhile.
func (s *fixture) loseRecords(names ...string) {
	s.Helper()
	datasets := make(map[string][]string) // with the properties to remove
	for _, name := range names {
		r, err := s.sn.index.Get(name)
		require.NoError(s, err)
		datasets[r.Dataset] = append(datasets[r.Dataset], r.Props...)
	}
	require.NoError(s, s.sn.Close())
	for dataset, props := range datasets {
		s.pool.EditFS(dataset, func(fs *zfsfake.FS) {
			for _, prop := range props {
				require.Contains(s, fs.Props, prop)
				delete(fs.Props, prop)
			}
		})
	}
	s.start()
}

// restorations returns the number of restored records.
func (s *fixture) restorations() int { return strings.Count(s.log.String(), restoredMessage) }

// healOps are the methods that restore the record of a layer. They take the layer's name and
// an unused key.
var healOps = map[string]func(s *fixture, name, key string) error{
	"prepare": func(s *fixture, name, key string) error { return second(s.sn.Prepare(s.ctx, key, name)) },
	"view":    func(s *fixture, name, key string) error { return second(s.sn.View(s.ctx, key, name)) },
	"stat":    func(s *fixture, name, _ string) error { return second(s.sn.Stat(s.ctx, name)) },
	"usage":   func(s *fixture, name, _ string) error { return second(s.sn.Usage(s.ctx, name)) },
	"update": func(s *fixture, name, _ string) error {
		return second(s.sn.Update(s.ctx, snapshots.Info{Name: name}, "labels.a"))
	},
}

// containerd's database names a layer whose record is lost. Each method restores the record,
// which then survives a restart.
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
				assert.Empty(t, info.Parent, "containerd's name of the parent is unknown")
				assert.Empty(t, info.Labels)
				assert.Equal(t, "a;b;", s.visible()[names[1]].Content)
				assert.Equal(t, 1, s.restorations(), "one message for each record")
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
					assert.Equal(t, 1, s.restorations(), "restored once, %d", i)
				}
			}
		})
	}
}

// Another containerd has collected all layers. The first one still runs containers, pulls,
// unpacks and collects garbage.
func TestAllLostRecordsAreRestored(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	names := s.image("default", "a;", "b;", "c;")
	s.remove(names[2], names[1], names[0])
	s.cleanup()
	s.with = func(c *Config) { c.CacheKeep = 0 }
	require.Empty(t, s.names())

	s.prepare("default/80/web", names[2])
	assert.Equal(t, "a;b;c;", s.visible()["default/80/web"].Content, "a container has the image's content")
	for _, name := range names { // the unpacker calls Stat after AlreadyExists from containerd's database
		assert.Equal(t, name, s.stat(name).Name)
	}
	assert.Equal(t, 3, s.restorations())
	other, unpacked := s.pull("default", names[1], layout.ChainID(chainIDOf(names[1]), digest.FromString("d;").String()), "d;")
	assert.True(t, unpacked, "it is a layer of another image")
	assert.Equal(t, "a;b;d;", s.visible()[other].Content)
	assert.Equal(t, names[1], s.stat(other).Parent)
	s.requireInvariants()

	s.remove("default/80/web", names[2])
	require.ErrorIs(t, s.sn.Remove(s.ctx, names[1]), errdefs.ErrFailedPrecondition, "it has a child")
	s.remove(names[0])
	s.restart()
	s.cleanup()
	assert.Equal(t, "a;b;d;", s.visible()[other].Content, "templates with clones stay")
	s.remove(other, names[1])
	s.cleanup()
	assert.Len(t, s.datasets(), 1, "all layers are destroyed")
	s.requireInvariants()
}

// A layer is reused if it is requested on a parent whose record is lost.
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

// Concurrent callers restore a record once.
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

// txg returns the number of the last transaction group of the pool.
func (s *fixture) txg() uint64 {
	var txg uint64
	s.pool.Edit(func(state *zfsfake.State) { txg = state.TXG })
	return txg
}

// Snapshots whose parent was lost get it again when its record is restored, and keep it after
// a start.
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
	// An update and a commit keep the name of the lost parent.
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

// A snapshot that is locked while its parent's record is restored gets the parent at the next
// start. The restore does not wait for it, and the child is counted once.
func TestLockedChildGetsRestoredParentAtNextStart(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	names := s.image("default", "a;")
	s.prepare("default/80/web", names[0])
	s.loseRecords(names[0])
	unlock, err := s.sn.locks.keys.Lock(s.ctx, "default/80/web")
	require.NoError(t, err)
	s.stat(names[0])
	unlock()
	assert.Empty(t, s.stat("default/80/web").Parent)
	s.restart()
	assert.Equal(t, names[0], s.stat("default/80/web").Parent)
	s.remove("default/80/web", names[0])
	s.requireInvariants()
}
