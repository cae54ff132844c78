package snapshotter

import (
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/internal/record"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
	"github.com/zfstpl/zfstpl/snapshotter/zfs/zfsfake"
)

// Labels whose record takes about 190 kB are stored. Labels that do not fit into a
// dataset's properties are refused before anything is changed.
func TestTooLargeLabelsAreRefused(t *testing.T) {
	t.Parallel()
	large := map[string]string{"a": strings.Repeat("x", 100_000), "b": strings.Repeat("é", 15_000)}
	huge := map[string]string{"a": strings.Repeat("x", 30*zfs.MaxPropertyValue)}
	broken := map[string]string{"a": "\xff"}
	s := newFixture(t)
	a, _ := s.pull("default", "", chain("a"), "a;")
	s.prepare("web", a, snapshots.WithLabels(large))
	s.view("look", a, snapshots.WithLabels(large))
	s.prepare("making saved", a)
	s.commit("saved", "making saved", snapshots.WithLabels(large))
	b, _ := s.pull("default", a, chain("b"), "b;")
	s.remove(b)
	s.cleanup()
	before, visible := dump(s.sn), s.visible()
	for what, labels := range map[string]map[string]string{"huge": huge, "not UTF-8": broken, "key not UTF-8": {"\xff": "a"}} {
		with := snapshots.WithLabels(labels)
		reuseMode := snapshots.WithLabels(map[string]string{"big": labels["a"] + "\xff", snapshots.LabelSnapshotRef: chain("b")})
		for _, err := range []error{
			second(s.sn.Prepare(s.ctx, "x", a, with)),
			second(s.sn.Prepare(s.ctx, "x", a, reuseMode)),
			second(s.sn.View(s.ctx, "x", a, with)),
			s.sn.Commit(s.ctx, "x", "web", with),
			second(s.sn.Update(s.ctx, snapshots.Info{Name: "web", Labels: labels})),
		} {
			assert.ErrorIs(t, err, errdefs.ErrInvalidArgument, what)
		}
	}
	assert.Equal(t, before, dump(s.sn))
	s.requireInvariants()
	s.restart()
	assert.Equal(t, visible, s.visible())
	for _, name := range []string{"web", "look", "saved"} {
		assert.Equal(t, large, s.stat(name).Labels)
		s.remove(name)
	}
	s.requireInvariants()
}

// An update with fewer labels removes all parts of the old record.
func TestUpdateRemovesPartsOfOldRecord(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.prepare("web", "", label("a", strings.Repeat("x", 50_000)))
	for _, size := range []int{10, 20_000, 0, 50_000, 1} {
		_, err := s.sn.Update(s.ctx, snapshots.Info{Name: "web", Labels: map[string]string{"a": strings.Repeat("y", size)}})
		require.NoError(t, err)
		s.requireInvariants()
		n := 0
		s.pool.Edit(func(state *zfsfake.State) { n = len(state.FS[s.dataset("web")].Props) })
		assert.Equal(t, 1+size/record.PartSize, n, "properties for %d bytes", size)
	}
}

// Keys and names are stored as values and never become part of a dataset's name.
func TestHostileKeysAreOnlyValues(t *testing.T) {
	t.Parallel()
	s := newFixture(t, keepCached(0))
	parent := ""
	keys := []string{"-o", "@", "%", "a@b", "../..", "\n", "\x1b[2J", "tank/z/storage/empty", "日本語", strings.Repeat("x", 4096), "default/1/", "sha256:x"}
	for _, key := range keys {
		s.prepare(key, parent)
		s.write(key, "x;")
		name := "saved " + key
		s.commit(name[:min(len(name), 4096)], key)
		s.view(key, parent)
	}
	s.restart()
	assert.Len(t, s.walk(), 2*len(keys))
	for _, info := range s.walk() {
		s.remove(info.Name)
	}
	s.requireInvariants()
	assert.Len(t, s.datasets(), 1)
}
