package snapshotter

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

func testRecord(name string, labels map[string]string) *record {
	now := time.Date(2025, 5, 6, 7, 8, 9, 123456789, time.UTC)
	return &record{id: layout.NewID(), seq: 42, dataset: "tank/z/storage/x", target: chain("a"), info: snapshots.Info{
		Kind: snapshots.KindActive, Name: name, Parent: "p", Labels: labels, Created: now, Updated: now.Add(time.Second),
	}}
}

// roundTrip encodes a record and decodes it from a listing.
func roundTrip(t *testing.T, r *record) *record {
	t.Helper()
	props, err := r.properties()
	require.NoError(t, err)
	for _, value := range props {
		require.LessOrEqual(t, len(value), zfs.MaxPropertyValue)
		require.True(t, utf8.ValidString(value), "no character is split")
		require.NotContains(t, value, "\n")
		require.NotContains(t, value, "\t")
	}
	require.Len(t, props, len(r.props))
	records, err := readRecords(zfs.Dataset{Name: r.dataset, Props: props})
	require.NoError(t, err)
	require.Len(t, records, 1)
	return records[0]
}

func TestRecordsSurviveRoundTrip(t *testing.T) {
	t.Parallel()
	hostile := "\t\r\n\"\\'<&>\u2028\u2029\x01\x7f\u0085日本語🦀 -o = , "
	for what, labels := range map[string]map[string]string{
		"none":    nil,
		"some":    {"a": "b", "containerd.io/snapshot.ref": chain("b")},
		"hostile": {hostile: hostile, "": ""},
		"long":    {"a": strings.Repeat("x", 100_000)},
		"wide":    {"a": strings.Repeat("é", 10_000), "b": strings.Repeat("日", 10_000), "c": strings.Repeat("🦀", 10_000)},
	} {
		r := testRecord("default/1/"+hostile, labels)
		assert.Equal(t, r, roundTrip(t, r), what)
	}
}

// The parts of a record never split a character.
func TestRecordsAreSplitBetweenCharacters(t *testing.T) {
	t.Parallel()
	for _, wide := range []string{"é", "日", "🦀"} {
		for shift := range 5 {
			r := testRecord("n"+strings.Repeat("x", shift), map[string]string{"a": strings.Repeat(wide, 3*partSize/len(wide))})
			require.Equal(t, r, roundTrip(t, r), "%s, moved by %d", wide, shift)
		}
	}
}

func TestSplitKeepsCharacters(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text string
		size int
		want []string
	}{
		{"", 4, []string{""}},
		{"abcd", 4, []string{"abcd"}},
		{"abcde", 4, []string{"abcd", "e"}},
		{"abcdefgh", 4, []string{"abcd", "efgh"}},
		{"abcé", 4, []string{"abc", "é"}},
		{"ab日本", 4, []string{"ab", "日", "本"}},
		{"🦀🦀", 4, []string{"🦀", "🦀"}},
		{"a🦀", 4, []string{"a", "🦀"}},
	} {
		assert.Equal(t, c.want, split(c.text, c.size), "%q by %d", c.text, c.size)
	}
}

// Many records on one dataset do not mix their parts, and a corrupt one does not affect the
// others.
func TestRecordsOfOneDatasetAreSeparate(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	d := zfs.Dataset{Name: "tank/z/storage/x", Props: map[string]string{"zfstpl:version": "x", "zfstpl:last-used": "y", "other:record:z": "x"}}
	want := make(map[layout.ID]*record)
	for i := range 30 {
		rec := testRecord(fmt.Sprint("default/", i, "/x"), map[string]string{"a": strings.Repeat("é", r.IntN(20_000))})
		props, err := rec.properties()
		require.NoError(t, err)
		for k, v := range props {
			d.Props[k] = v
		}
		want[rec.id] = rec
	}
	// One is corrupt.
	bad := testRecord("bad", nil)
	d.Props[propRecord+bad.id.String()] = "2 {"
	records, err := readRecords(d)
	assert.ErrorContains(t, err, bad.id.String())
	got := make(map[layout.ID]*record)
	for _, rec := range records {
		got[rec.id] = rec
	}
	assert.Equal(t, want, got)
}

// Labels whose record takes about 190 kB are stored. Labels that do not fit into a
// dataset's properties are refused before anything is changed.
func TestTooLargeLabelsAreRefused(t *testing.T) {
	t.Parallel()
	large := map[string]string{"a": strings.Repeat("x", 100_000), "b": strings.Repeat("é", 15_000)}
	huge := map[string]string{"a": strings.Repeat("x", maxParts*zfs.MaxPropertyValue)}
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
		s.pool.edit(func(state *fakeState) { n = len(state.fs[s.dataset("web")].props) })
		assert.Equal(t, 1+size/partSize, n, "properties for %d bytes", size)
	}
}

func TestCheckNameAcceptsWhatAPropertyCanHold(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"a", "\n", "日本", "../..", "-o", strings.Repeat("x", maxKey), "/tmp/snapshots/1"} {
		assert.NoError(t, checkName("key", name), "%.20q", name)
	}
	for _, name := range []string{"", "\x00", "a\x00", "\xff", "a\xc3", strings.Repeat("x", maxKey+1)} {
		err := checkName("key", name)
		assert.ErrorIs(t, err, errdefs.ErrInvalidArgument, "%.20q", name)
		assert.Less(t, len(err.Error()), 500)
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
		s.commit(name[:min(len(name), maxKey)], key)
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
