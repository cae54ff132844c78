package diff

import (
	"archive/tar"
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/diff"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var entries = flag.Int("diff.entries", 10_000, "number of entries of a large directory and a large layer")

// In a directory with very many entries exactly those that differ are found.
func TestChangesInALargeDirectoryAreFound(t *testing.T) {
	t.Parallel()
	lower, upper := t.TempDir(), t.TempDir()
	at := time.Unix(1_700_000_000, 0)
	for i := range *entries {
		for _, dir := range []string{lower, upper} {
			path := filepath.Join(dir, fmt.Sprintf("file-%07d", i))
			require.NoError(t, os.WriteFile(path, nil, 0o644))
			require.NoError(t, os.Chtimes(path, at, at))
		}
	}
	last := fmt.Sprintf("file-%07d", *entries-1)
	require.NoError(t, os.WriteFile(filepath.Join(upper, "file-0000000"), []byte("changed"), 0o644))
	require.NoError(t, os.Remove(filepath.Join(upper, last)))
	require.NoError(t, os.WriteFile(filepath.Join(upper, "new"), nil, 0o644))
	began := time.Now()
	layer := layerOf(t, lower, upper, nil)
	t.Logf("%d entries were compared in %s", *entries, time.Since(began))
	r := tar.NewReader(bytes.NewReader(layer))
	var names []string
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		require.NoError(t, err)
		names = append(names, h.Name)
	}
	assert.ElementsMatch(t, []string{"file-0000000", ".wh." + last, "new"}, names)
}

// A layer of very many files is unpacked while it is read.
func TestLayerOfManyFilesIsUnpacked(t *testing.T) {
	needsRoot(t)
	t.Parallel()
	dir := t.TempDir()
	root, err := os.Open(dir)
	require.NoError(t, err)
	defer root.Close()
	in, out := io.Pipe()
	go func() { out.CloseWithError(writeMany(out, *entries)) }()
	s, err := uncompress(t.Context(), ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer}, in, diff.ApplyConfig{})
	require.NoError(t, err)
	defer s.Close()
	began := time.Now()
	require.NoError(t, jailed(root, func() error { return s.unpack(context.WithoutCancel(t.Context())) }))
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	t.Logf("%d entries were unpacked in %s, with %d MiB obtained from the system", *entries, time.Since(began), m.Sys>>20)
	found := 0
	dirs, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, d := range dirs {
		files, err := os.ReadDir(filepath.Join(dir, d.Name()))
		require.NoError(t, err)
		found += len(files) + 1
	}
	assert.Equal(t, *entries, found)
}

func writeMany(w io.Writer, entries int) error {
	layer := tar.NewWriter(w)
	for i := range entries {
		h := tar.Header{Name: fmt.Sprintf("dir-%04d/file-%07d", i/1000, i), Mode: 0o644, Typeflag: tar.TypeReg}
		if i%1000 == 0 {
			h = tar.Header{Name: fmt.Sprintf("dir-%04d/", i/1000), Mode: 0o755, Typeflag: tar.TypeDir}
		}
		if err := layer.WriteHeader(&h); err != nil {
			return err
		}
	}
	return layer.Close()
}
