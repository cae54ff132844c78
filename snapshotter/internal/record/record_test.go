package record

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

var testChain = "sha256:" + strings.Repeat("a", 64)

func testRecord(name string, labels map[string]string) *Record {
	now := time.Date(2025, 5, 6, 7, 8, 9, 123456789, time.UTC)
	return &Record{ID: layout.NewID(), Seq: 42, Dataset: "tank/z/storage/x", Target: testChain, Info: snapshots.Info{
		Kind: snapshots.KindActive, Name: name, Parent: "p", Labels: labels, Created: now, Updated: now.Add(time.Second),
	}}
}

// roundTrip encodes a record and decodes it from a listing.
func roundTrip(t *testing.T, r *Record) *Record {
	t.Helper()
	props, err := r.properties()
	require.NoError(t, err)
	for _, value := range props {
		require.LessOrEqual(t, len(value), zfs.MaxPropertyValue)
		require.True(t, utf8.ValidString(value), "no character is split")
		require.NotContains(t, value, "\n")
		require.NotContains(t, value, "\t")
	}
	require.Len(t, props, len(r.Props))
	records, err := Read(zfs.Dataset{Name: r.Dataset, Props: props})
	require.NoError(t, err)
	require.Len(t, records, 1)
	return records[0]
}

func TestRecordsSurviveRoundTrip(t *testing.T) {
	t.Parallel()
	hostile := "\t\r\n\"\\'<&>\u2028\u2029\x01\x7f\u0085日本語🦀 -o = , "
	for what, labels := range map[string]map[string]string{
		"none":    nil,
		"some":    {"a": "b", "containerd.io/snapshot.ref": testChain},
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
			r := testRecord("n"+strings.Repeat("x", shift), map[string]string{"a": strings.Repeat(wide, 3*PartSize/len(wide))})
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
	want := make(map[layout.ID]*Record)
	for i := range 30 {
		rec := testRecord(fmt.Sprint("default/", i, "/x"), map[string]string{"a": strings.Repeat("é", r.IntN(20_000))})
		props, err := rec.properties()
		require.NoError(t, err)
		for k, v := range props {
			d.Props[k] = v
		}
		want[rec.ID] = rec
	}
	// One is corrupt.
	bad := testRecord("bad", nil)
	d.Props[Property+bad.ID.String()] = "2 {"
	records, err := Read(d)
	assert.ErrorContains(t, err, bad.ID.String())
	got := make(map[layout.ID]*Record)
	for _, rec := range records {
		got[rec.ID] = rec
	}
	assert.Equal(t, want, got)
}

func TestCheckNameAcceptsWhatAPropertyCanHold(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"a", "\n", "日本", "../..", "-o", strings.Repeat("x", maxKey), "/tmp/snapshots/1"} {
		assert.NoError(t, CheckName("key", name), "%.20q", name)
	}
	for _, name := range []string{"", "\x00", "a\x00", "\xff", "a\xc3", strings.Repeat("x", maxKey+1)} {
		err := CheckName("key", name)
		assert.ErrorIs(t, err, errdefs.ErrInvalidArgument, "%.20q", name)
		assert.Less(t, len(err.Error()), 500)
	}
}
