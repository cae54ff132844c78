//go:build linux

package manifest

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// plant makes a small tree with one of everything an ordinary user may create.
func plant(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	at := func(name string) string { return filepath.Join(root, name) }
	require.NoError(t, os.Chmod(root, 0o755))
	require.NoError(t, os.Mkdir(at("d"), 0o755))
	require.NoError(t, os.WriteFile(at("d/ä b\nc.txt"), []byte("text"), 0o640))
	require.NoError(t, os.Chmod(at("d/ä b\nc.txt"), 0o640))
	require.NoError(t, os.Link(at("d/ä b\nc.txt"), at("a-link")))
	require.NoError(t, os.Symlink("d/nowhere", at("s")))
	require.NoError(t, unix.Mkfifo(at("p"), 0o600))
	require.NoError(t, os.WriteFile(at("empty"), nil, 0o600))
	require.NoError(t, os.Chmod(at("empty"), os.ModeSetuid|0o755))
	return root
}

func TestWalkDescribesEveryKindOfPath(t *testing.T) {
	entries, err := Walk(plant(t))
	require.NoError(t, err)

	var got []string
	for _, e := range entries {
		got = append(got, strings.Join([]string{e.Path, e.Type, e.Mode, e.Target, e.Links}, "|"))
	}
	require.Equal(t, []string{
		".|dir|0755||",
		"a-link|file|0640||a-link",
		"d|dir|0755||",
		"d/ä b\nc.txt|file|0640||a-link",
		"empty|file|4755||",
		"p|fifo|0600||",
		"s|symlink|0777|d/nowhere|",
	}, got)
	const text = "982d9e3eb996f559e633f4d194def3761d909f5a3b647d1a851fead67c32c9d1"
	require.Equal(t, text, entries[1].SHA256)
	require.Equal(t, text, entries[3].SHA256)
	require.EqualValues(t, 4, entries[3].Size)
}

func TestWriteAndReadAgree(t *testing.T) {
	entries, err := Walk(plant(t))
	require.NoError(t, err)
	var buffer bytes.Buffer
	require.NoError(t, Write(&buffer, entries))
	require.Equal(t, len(entries), bytes.Count(buffer.Bytes(), []byte("\n")), "one line per path, even with a newline in its name")
	again, err := Read(&buffer)
	require.NoError(t, err)
	require.Equal(t, entries, again)
}

func TestReadRefusesWhatIsNoManifest(t *testing.T) {
	for _, text := range []string{`{"path":"a"`, `{"name":"a"}`, `[]`} {
		_, err := Read(strings.NewReader(text))
		require.Error(t, err, text)
	}
}

func TestWalkRefusesNamesThatJSONCannotHold(t *testing.T) {
	root := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(root, "\xff"), nil, 0o600))
	_, err := Walk(root)
	require.ErrorContains(t, err, "no UTF-8")
}

func TestCompareNamesEveryDeviation(t *testing.T) {
	want := []Entry{
		{Path: "same", Type: File, Mode: "0644"},
		{Path: "gone", Type: File, Mode: "0644"},
		{Path: "mode", Type: File, Mode: "0644"},
	}
	require.Nil(t, Compare(want, want))
	got := []Entry{
		{Path: "mode", Type: File, Mode: "0600"},
		{Path: "new", Type: Fifo, Mode: "0644"},
		{Path: "same", Type: File, Mode: "0644"},
	}
	differences := Compare(want, got)
	require.Len(t, differences, 3)
	require.Equal(t, `"gone" is missing`, differences[0])
	require.Contains(t, differences[1], `"mode": want`)
	require.Equal(t, `"new" should not be there: fifo`, differences[2])
}
