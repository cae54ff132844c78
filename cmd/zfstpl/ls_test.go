package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/inspect"
)

var noon = time.Date(2025, 6, 1, 12, 0, 0, 0, time.UTC)

func chain(digit string) string { return "sha256:" + strings.Repeat(digit, 64) }

func drawn(t *testing.T, full bool, entries []inspect.Entry) string {
	t.Helper()
	var out bytes.Buffer
	require.NoError(t, tree{full: full, now: func() time.Time { return noon }}.print(&out, "tank/z", entries))
	var lines []string
	for line := range strings.Lines(out.String()) {
		lines = append(lines, strings.TrimRight(line, " \n"))
	}
	return "\n" + strings.Join(lines, "\n") + "\n"
}

func records(infos ...snapshots.Info) []snapshots.Info { return infos }

func info(kind snapshots.Kind, name string) snapshots.Info {
	return snapshots.Info{Kind: kind, Name: name}
}

func TestTreeShowsClonesBelowTheirOrigins(t *testing.T) {
	t.Parallel()
	const storage, runtime = "tank/z/storage/", "tank/z/runtime/"
	entries := []inspect.Entry{
		{Dataset: runtime + "web-0123456789abcdef", Parent: storage + chain("b"), State: inspect.Used, Used: 4096, Refer: 3 << 20,
			Records: records(info(snapshots.KindActive, "default/9/web"))},
		{Dataset: runtime + "old-0123456789abcde0", Parent: storage + chain("b"), State: inspect.Garbage, Used: 1024},
		{Dataset: storage + chain("a"), Parent: storage + "empty", State: inspect.Used, Used: 1 << 20, Refer: 1 << 20, Records: records(
			info(snapshots.KindCommitted, "default/2/"+chain("a")), info(snapshots.KindCommitted, "default/7/"+chain("a")),
			info(snapshots.KindCommitted, "k8s.io/4/"+chain("a")), info(snapshots.KindView, "default/8/look"))},
		{Dataset: storage + chain("b"), Parent: storage + chain("a"), State: inspect.Used, Used: 2 << 20, Refer: 3 << 20,
			Records: records(info(snapshots.KindCommitted, chain("b")))},
		{Dataset: storage + chain("f"), Parent: storage + chain("a"), State: inspect.Used},
		{Dataset: runtime + "extract-ffffffffffff-0123456789abcde1", Parent: storage + chain("f"), State: inspect.Used, StandInFor: chain("f"),
			Records: records(info(snapshots.KindActive, "zoo/9/extract-1-x "+chain("f")))},
		{Dataset: storage + chain("c"), Parent: storage + chain("a"), State: inspect.Cached, Since: noon.Add(-26 * time.Hour), Foreign: []string{storage + chain("c") + "@nightly", storage + chain("c") + "@weekly"}},
		{Dataset: storage + "opaque-0123456789abcdef", Parent: storage + "empty", State: inspect.Used,
			Records: records(info(snapshots.KindCommitted, "default/5/saved"), info(snapshots.KindCommitted, "plain"))},
		{Dataset: storage + "empty", State: inspect.Used, Used: 24576, Refer: 24576},
		{Dataset: storage + chain("d"), Parent: "tank/elsewhere", State: inspect.Partial},
		{Dataset: "tank/z/mine", State: inspect.Foreign},
		{Dataset: storage + chain("e"), Parent: storage + "empty", State: inspect.Used, Problem: "part 2 of 3 is missing"},
	}
	assert.Equal(t, `
tank/z                                          USED      REFER  OWNER
mine                                            0B        0B     foreign
sha256:dddddddddddd…                            0B        0B     partial, left by a crash
empty                                           24KiB     24KiB  base layer
├─ opaque-0123456789abcdef                      0B        0B     snapshot default/saved, snapshot plain
├─ sha256:aaaaaaaaaaaa…                         1MiB      1MiB   image layer in default, image layer in k8s.io, view default/look
│  ├─ sha256:bbbbbbbbbbbb…                      2MiB      3MiB   image layer
│  │  ├─ old-0123456789abcde0                   1KiB      0B     garbage, destroyed by the next cleanup
│  │  └─ web-0123456789abcdef                   4KiB      3MiB   active default/web
│  ├─ sha256:ffffffffffff…                      0B        0B     pull in progress
│  │  └─ extract-ffffffffffff-0123456789abcde1  0B        0B     active zoo/extract-1-x sha256:ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff…, stand-in
│  └─ sha256:cccccccccccc…                      0B        0B     cached, unused for 26 hours, kept by snapshots: nightly, weekly
└─ sha256:eeeeeeeeeeee…                         0B        0B     skipped: part 2 of 3 is missing
12 datasets                                     3.028MiB
`, drawn(t, false, entries))
	full := drawn(t, true, entries)
	assert.Contains(t, full, "├─ "+chain("a")+" ")
	assert.NotContains(t, full, "…")
	assert.Equal(t, drawn(t, false, entries), drawn(t, false, entries))
}

func TestTreeOfAnEmptyBaseHasNoRows(t *testing.T) {
	t.Parallel()
	assert.Equal(t, `
tank/z      USED  REFER  OWNER
0 datasets  0B
`, drawn(t, false, nil))
}

// Each dataset has one line, and a client's text has no effect on the terminal.
func TestHostileNamesArePrintedSafely(t *testing.T) {
	t.Parallel()
	hostile := []string{
		"a\nb", "a\tb", "\x1b[2J\x1b[31m", "\x07", "\r", "\x00", "\x7f", "\u009b2J", "\v", "\f", "\xff\xfe", strings.Repeat("x", 5000), strings.Repeat("日", 5000),
	}
	var names []string
	for _, h := range hostile {
		names = append(names, h, "default/1/"+h, h+"/1/web", h+"/1/"+chain("a"))
	}
	for _, name := range names {
		for _, e := range []inspect.Entry{
			{Records: records(info(snapshots.KindActive, name))},
			{Records: records(info(snapshots.KindView, name))},
			{Records: records(info(snapshots.KindCommitted, name))},
			{Problem: "property x: " + name + "\nproperty y: " + name},
		} {
			e.Dataset, e.State = "tank/z/runtime/web-0123456789abcdef", inspect.Used
			text := drawn(t, false, []inspect.Entry{e})
			require.Equal(t, 4, strings.Count(text, "\n"), "%.60q is not one line: %.200q", name, text)
			require.False(t, strings.ContainsFunc(strings.ReplaceAll(text, "\n", ""), unicode.IsControl),
				"%.60q reaches the terminal: %.200q", name, text)
			require.True(t, utf8.ValidString(text), "%.60q", name)
		}
	}
	long := records(info(snapshots.KindActive, "default/1/"+strings.Repeat("日", 5000)))
	assert.Less(t, len([]rune(tree{}.owners(long)[0])), 120, "a long name is cut")
	assert.Greater(t, len([]rune(tree{full: true}.owners(long)[0])), 5000, "--full does not cut it")
	id := strings.Repeat("f", 64)
	assert.Equal(t, []string{"active k8s.io/" + id}, tree{}.owners(records(info(snapshots.KindActive, "k8s.io/9/"+id))), "'zfstpl diff' accepts it")
}

func TestPrintableReplacesControlCharacters(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"": "", "web": "web", "日本語": "日本語", "a\nb": "a?b", "\x1b[2J": "?[2J", "\u009b": "?",
		strings.Repeat("é", 60): strings.Repeat("é", 60), strings.Repeat("é", 61): strings.Repeat("é", 59) + "…",
	} {
		assert.Equal(t, want, printable(in, 60), "%q", in)
	}
	assert.Len(t, printable(strings.Repeat("x", 5000), 0), 5000)
}

func TestTreeReturnsTheErrorOfWriting(t *testing.T) {
	t.Parallel()
	assert.Error(t, tree{}.print(full{}, "tank/z", nil))
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, assert.AnError }
