package crash

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/harness"
	"github.com/zfstpl/zfstpl/integration/model"
)

// state is what the daemon shows of all snapshots.
type state struct {
	records map[string]model.Snapshot
	mounts  map[string]string // without the random part of names
	sources map[string]string // of the mounts
}

// runtimeName matches the path of a runtime. That of one which was made in advance has another
// readable part.
var runtimeName = regexp.MustCompile(`/runtime/[0-9A-Za-z-]*-[0-9a-f]{16}\b`)

var randomPart = regexp.MustCompile(`-[0-9a-f]{16}\b`)

// read returns the state that the daemon shows by every call that returns from memory.
func (f *Fixture) read() *state {
	f.t.Helper()
	s := &state{make(map[string]model.Snapshot), make(map[string]string), make(map[string]string)}
	for name, info := range harness.Everything(f.t, f.sn) {
		stat, err := f.sn.Stat(f.ctx, name)
		f.must(err)
		require.Equal(f.t, stat, info, "Stat and Walk return the same")
		s.records[name] = model.Listed(info)
		if info.Kind == snapshots.KindCommitted {
			continue
		}
		mounts, err := f.sn.Mounts(f.ctx, name)
		f.must(err)
		source := f.base.Source(f.t, mounts)
		s.sources[name] = source
		text := fmt.Sprint(mounts[0].Type, " ", strings.TrimPrefix(source, f.base.String()), mounts[0].Options)
		s.mounts[name] = randomPart.ReplaceAllString(runtimeName.ReplaceAllString(text, "/runtime/ID"), "-ID")
	}
	return s
}

// differences describes how s differs from another state, except for the sources of mounts.
func (s *state) differences(actual *state) []string {
	found := model.Differences(s.records, actual.records)
	for name, mounts := range s.mounts {
		if got, ok := actual.mounts[name]; ok && got != mounts {
			found = append(found, fmt.Sprintf("mounts of %q: expected %s, got %s", name, mounts, got))
		}
	}
	return found
}

// recordState reads the state before the operation of the case and compares it with the
// model.
func (f *Fixture) recordState() {
	f.t.Helper()
	f.before = f.readExpected()
}

// readExpected returns the state after it has compared it with the model.
func (f *Fixture) readExpected() *state {
	f.t.Helper()
	s := f.read()
	require.Empty(f.t, model.Differences(model.Records(f.model.Visible()), s.records))
	return s
}

// fileSize is the size of a file: some blocks, so that it is not part of its dnode.
const fileSize = 20_000

// write creates a file in a snapshot, with a word as its name and content. The content of
// the snapshot in the model is a list of words.
func (f *Fixture) write(key, word string) {
	f.t.Helper()
	mounts, err := f.sn.Mounts(f.ctx, key)
	f.must(err)
	harness.Mounted(f.t, mounts, func(root string) { f.must(writeWord(root, word)) })
	f.model.Write(key, word+";")
}

func writeWord(root, word string) error {
	return os.WriteFile(filepath.Join(root, word), []byte(contentOf(word)), 0o640)
}

func contentOf(word string) string { return strings.Repeat(word, fileSize/len(word)) }

// requireContent asserts that every snapshot has the content of the model. It mounts a view
// of each committed snapshot.
func (f *Fixture) requireContent() {
	f.t.Helper()
	for name, snap := range f.model.Visible() {
		var mounts []mount.Mount
		var err error
		if snap.Kind == snapshots.KindCommitted {
			mounts, err = f.sn.View(f.ctx, "look", name)
		} else {
			mounts, err = f.sn.Mounts(f.ctx, name)
		}
		f.must(err)
		words := strings.FieldsFunc(snap.Content, func(r rune) bool { return r == ';' })
		harness.Mounted(f.t, mounts, func(root string) { requireWords(f.t, root, words, name) })
		if snap.Kind == snapshots.KindCommitted {
			f.must(f.sn.Remove(f.ctx, "look"))
		}
	}
}

// requireWords asserts that a snapshot has the files of these words and no others.
func requireWords(t testing.TB, root string, words []string, name string) {
	t.Helper()
	files, err := os.ReadDir(root)
	require.NoError(t, err)
	require.Len(t, files, len(words), "files in %q: %v", name, files)
	for _, word := range words {
		content, err := os.ReadFile(filepath.Join(root, word))
		require.NoError(t, err, "in %q", name)
		require.True(t, string(content) == contentOf(word), "the content of %s in %q", word, name)
	}
}

// cleanUpAndCheck writes what is pending and asserts the invariants.
func (f *Fixture) cleanUpAndCheck() {
	f.t.Helper()
	f.must(f.cleanup())
	f.base.Check(f.t)
	if f.t.Failed() {
		f.t.FailNow()
	}
}

// removeUnknown removes the snapshots whose keys were used again, as containerd's garbage
// collection does.
func (f *Fixture) removeUnknown() {
	f.t.Helper()
	for name := range harness.Everything(f.t, f.sn) {
		if strings.Contains(name, model.Aside) {
			f.must(f.sn.Remove(f.ctx, name))
		}
	}
}

// describe returns the datasets, the points that were passed and the daemon's log.
func (f *Fixture) describe() string {
	var b strings.Builder
	list, err := f.base.Client.List(f.ctx, f.base.String())
	for _, d := range list {
		fmt.Fprintf(&b, "%s origin %s txg %d %q\n", strings.TrimPrefix(d.Name, f.base.String()), strings.TrimPrefix(d.Origin, f.base.String()), d.CreateTXG, d.Snapshots)
		for prop, value := range d.Props {
			fmt.Fprintf(&b, "    %s = %.200s\n", prop, value)
		}
	}
	fmt.Fprintf(&b, "listing: %v; the step that failed: %v\n", err, f.failed)
	for _, p := range f.points(f.t) {
		fmt.Fprintln(&b, p.at.Format("05.000000"), p.what)
	}
	fmt.Fprintf(&b, "%s", f.d.Log)
	return b.String()
}

func removeWord(root, word string) error { return os.Remove(filepath.Join(root, word)) }
