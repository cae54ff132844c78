//go:build linux

package recipe

import (
	"bytes"
	"context"
	"encoding/hex"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/tools/image/manifest"
)

func TestKeyIsStableAndShort(t *testing.T) {
	first, err := Key()
	require.NoError(t, err)
	second, err := Key()
	require.NoError(t, err)
	require.Equal(t, first, second)
	require.Regexp(t, `^[0-9a-f]{16}$`, first)
}

func TestKeyHoldsTheProgram(t *testing.T) {
	content, err := source.ReadFile("app/main.py")
	require.NoError(t, err)
	require.Equal(t, program, content)
}

func TestCapabilityIsWhatSetcapWrites(t *testing.T) {
	// setcap cap_net_raw+ep f; getfattr -e hex -n security.capability f
	require.Equal(t, "0100000200200000000000000000000000000000", hex.EncodeToString(capabilityValue(13)))
	require.Equal(t, "0100000200000000000000000100000000000000", hex.EncodeToString(capabilityValue(32)))
}

func TestTail(t *testing.T) {
	require.Equal(t, "  | b\n  | c", tail("a\nb\nc\n", 2))
	require.Equal(t, "  | a", tail("a", 2))
}

func TestNewestIgnoresWhatTheBuildWrote(t *testing.T) {
	started := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	tree := t.TempDir()
	for name, age := range map[string]time.Duration{"package": time.Hour, "older": 2 * time.Hour, "written": -time.Hour} {
		path := filepath.Join(tree, name)
		require.NoError(t, os.WriteFile(path, nil, 0o600))
		require.NoError(t, os.Chtimes(path, started, started.Add(-age)))
	}
	require.NoError(t, os.Chtimes(tree, started, started))
	got, err := newest(tree, started)
	require.NoError(t, err)
	require.Equal(t, started.Add(-time.Hour), got)
}

func TestFileRefusesToOverwrite(t *testing.T) {
	tree := t.TempDir()
	require.NoError(t, apply(tree, file("a", nil, 0o600)))
	require.ErrorContains(t, apply(tree, file("a", nil, 0o600)), "there already")
}

// bench is a kitchen without a stove: everything but what needs the network.
func bench(t *testing.T) *kitchen {
	t.Helper()
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, log.Close()) })
	return &kitchen{dir: t.TempDir(), log: log, progress: io.Discard, started: time.Now()}
}

// withSteps replaces the recipe for one test.
func withSteps(t *testing.T, replaced []step) {
	t.Helper()
	original := steps
	steps = replaced
	t.Cleanup(func() { steps = original })
}

// makeStandIn is a base with no more than the upper layers touch.
func makeStandIn(_ context.Context, _ *kitchen, tree string) error {
	return apply(tree,
		directory("usr", 0o755), directory("usr/bin", 0o755), directory("srv", 0o755),
		file("usr/bin/id", []byte("id"), 0o755), file("usr/bin/true", []byte("true"), 0o755),
		file("usr/bin/env", []byte("env"), 0o755),
		directory("usr/share", 0o755), directory("usr/share/doc", 0o755),
		file("usr/share/doc/copyright", []byte("text"), 0o644),
	)
}

func TestLayersRoundTrip(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for foreign owners and capabilities")
	}
	withSteps(t, []step{{"base", "", makeStandIn}, steps[2], steps[3]})
	k := bench(t)
	made, err := k.image(t.Context())
	require.NoError(t, err)

	image, err := open(made)
	require.NoError(t, err)
	require.Len(t, image.Layers, 3)
	require.Equal(t, image.Layers[0].DiffID, image.Layers[0].ChainID)
	require.NotEqual(t, image.Layers[1].DiffID, image.Layers[1].ChainID)

	content, err := os.ReadFile(image.Rootfs)
	require.NoError(t, err)
	entries, err := manifest.Read(bytes.NewReader(content))
	require.NoError(t, err)
	found := map[string]manifest.Entry{}
	for _, e := range entries {
		found[e.Path] = e
	}
	require.NotContains(t, found, "usr/share/doc")
	require.NotContains(t, found, "srv/app/texts")
	require.NotContains(t, found, "srv/app/kinds/made-anew/old")
	require.Contains(t, found, "srv/app/words/two\nlines.txt")
	require.Equal(t, "4755", found["srv/app/bin/setuid"].Mode)
	require.NotEmpty(t, found["srv/app/bin/capable"].Capability)
	require.Equal(t, found["srv/app/links/env"].Links, found["usr/bin/env"].Links)
	require.Equal(t, "srv/app/links/one", found["srv/app/links/two"].Links)
	require.EqualValues(t, 1234, found["srv/app/kinds/file"].UID)
}

func TestLayersAreTheSameTwice(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for foreign owners and capabilities")
	}
	standIn := func(ctx context.Context, k *kitchen, tree string) error {
		if err := makeStandIn(ctx, k, tree); err != nil {
			return err
		}
		old := time.Unix(1_700_000_000, 0) // as if a package had brought it
		return os.Chtimes(filepath.Join(tree, "usr/bin/id"), old, old)
	}
	withSteps(t, []step{{"base", "", standIn}, steps[2], steps[3]})
	var tars [2][]byte
	for i := range tars {
		made, err := bench(t).image(t.Context())
		require.NoError(t, err)
		tars[i], err = os.ReadFile(filepath.Join(made, tarName))
		require.NoError(t, err)
	}
	require.True(t, bytes.Equal(tars[0], tars[1]))
}

func TestFailureShowsTheEndOfTheLog(t *testing.T) {
	k := bench(t)
	err := k.explain(k.run(k.command(t.Context(), "echo what went wrong; exit 3")))
	require.ErrorContains(t, err, "exit status 3")
	require.ErrorContains(t, err, "  | what went wrong")
}

func TestIsolatedEndsWithEverythingItStarted(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for namespaces")
	}
	k := bench(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	pipe := filepath.Join(k.dir, "pipe")
	require.NoError(t, fifo("pipe", 0o600)(k.dir))
	done := make(chan error, 1)
	// The grandchild holds the pipe open: its end is the end of all.
	go func() {
		done <- k.isolated(ctx, `mount -t tmpfs none "$1"; exec 3>"$2"; setsid sleep 1000 & wait`, t.TempDir(), pipe)
	}()
	r, err := os.Open(pipe)
	require.NoError(t, err)
	defer r.Close()
	cancel()
	require.Error(t, <-done)
	_, err = io.ReadAll(r) // would block for as long as a writer exists
	require.NoError(t, err)
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	require.NoError(t, err)
	require.NotContains(t, string(mounts), t.Name())
}

func TestLockWaitsAndGivesUp(t *testing.T) {
	var said bytes.Buffer
	o := Options{Cache: t.TempDir(), Progress: &said}
	unlock, err := lock(t.Context(), o)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err = lock(ctx, o)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Contains(t, said.String(), "waiting")
	unlock()
	unlock, err = lock(t.Context(), o)
	require.NoError(t, err)
	unlock()
}

func TestNewKitchenRemovesWhatAKilledOneLeft(t *testing.T) {
	cache := t.TempDir()
	left := filepath.Join(cache, workPrefix+"left")
	require.NoError(t, os.MkdirAll(filepath.Join(left, "tree-1/etc"), 0o755))
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		t.Skip("would install mmdebstrap")
	}
	k, err := newKitchen(t.Context(), Options{Cache: cache, Progress: io.Discard})
	require.NoError(t, err)
	require.NoDirExists(t, left)
	require.NoError(t, k.close())
	require.NoDirExists(t, k.dir)
}

func TestProgramComputes(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("no python3 here")
	}
	dir := t.TempDir()
	require.NoError(t, apply(dir,
		file("main.py", program, 0o755),
		file("settings.ini", []byte("# comment = 1\nlimit = 100\ndigits = 5\n"), 0o644),
		directory("words", 0o755),
		file("words/two\nlines", []byte("three words here\n"), 0o644),
		file("words/empty", nil, 0o644)))
	out, err := exec.CommandContext(t.Context(), python, filepath.Join(dir, "main.py")).CombinedOutput()
	require.NoError(t, err, string(out))
	_, rest, _ := strings.Cut(string(out), "\n")
	require.Equal(t, "primes below 100: 25, the last 97\npi: 3.14159\nwords: 3 in 2 files\n", rest)
}
