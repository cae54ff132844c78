package differ

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/mount"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/harness"
	"github.com/zfstpl/zfstpl/integration/randtree"
	"github.com/zfstpl/zfstpl/snapshotter/diff"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
)

// TarNames returns the names in a layer.
func TarNames(t testing.TB, layer []byte) (names []string) {
	t.Helper()
	r := tar.NewReader(bytes.NewReader(layer))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		require.NoError(t, err)
		names = append(names, h.Name)
	}
}

// ReadTree reads a tree for a comparison by randtree.
func ReadTree(t testing.TB, root string) map[string]string {
	t.Helper()
	tree, err := randtree.Read(root)
	require.NoError(t, err)
	return tree
}

// RequireTreesReproduced creates random trees and changes them. It asserts that the layer of
// the changes reproduces them.
func (d *Rig) RequireTreesReproduced(t *testing.T, seed uint64, count, grow, edit int) {
	t.Helper()
	trees := make([]*randtree.Tree, count)
	lower := d.Template(t, "", func(root string) {
		for i := range trees {
			dir := filepath.Join(root, fmt.Sprint(i))
			harness.Mkdirs(t, dir)
			trees[i] = randtree.New(dir, seed+uint64(i))
			require.NoError(t, trees[i].Grow(grow))
		}
	})
	_, mounts := d.Prepare(t, lower)
	var layer []byte
	want := make([]map[string]string, count)
	harness.Mounted(t, mounts, func(root string) {
		for i, tree := range trees {
			dir := filepath.Join(root, fmt.Sprint(i))
			tree.At(dir)
			require.NoError(t, tree.Edit(edit))
			want[i] = ReadTree(t, dir)
		}
		layer = d.Layers(t, d.View(t, lower), mounts)
		for _, tree := range trees {
			require.NoError(t, tree.Close())
		}
	})
	d.Applied(t, lower, layer, func(root string) {
		for i, tree := range trees {
			lines := randtree.Differences(want[i], ReadTree(t, filepath.Join(root, fmt.Sprint(i))))
			if len(lines) > 0 {
				t.Errorf("seed %d:\n%s\nafter\n%s", seed+uint64(i), strings.Join(lines, "\n"), strings.Join(tree.Done, "\n"))
			}
		}
	})
}

// StreamNames reads the names in a layer while the differ writes it, and counts its bytes.
func (d *Rig) StreamNames(t testing.TB, sides diff.Sides) (names []string, size int64) {
	t.Helper()
	r, w := io.Pipe()
	go func() { w.CloseWithError(d.Layer(d.Context, sides, w, nil)) }()
	defer r.Close()
	var counted byteCount
	layer := tar.NewReader(io.TeeReader(r, &counted))
	for {
		h, err := layer.Next()
		if errors.Is(err, io.EOF) {
			return names, int64(counted)
		}
		require.NoError(t, err)
		names = append(names, h.Name)
	}
}

type byteCount int64

func (c *byteCount) Write(b []byte) (int, error) { *c += byteCount(len(b)); return len(b), nil }

// Push adds to the content store what write writes, like a layer of another client.
func (d *Rig) Push(t testing.TB, mediaType string, write func(w io.Writer)) ocispec.Descriptor {
	t.Helper()
	w, err := d.Contents.Store.Writer(d.Context, content.WithRef("pushed"))
	require.NoError(t, err)
	defer w.Close()
	var size byteCount
	write(io.MultiWriter(w, &size))
	digest := w.Digest()
	require.NoError(t, w.Commit(d.Context, int64(size), digest))
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest, Size: int64(size)}
}

// PushNoise adds a layer of files that do not compress.
func (d *Rig) PushNoise(t testing.TB, seed byte, size int64) ocispec.Descriptor {
	t.Helper()
	return d.Push(t, ocispec.MediaTypeImageLayer, func(w io.Writer) {
		random, layer := rand.NewChaCha8([32]byte{seed}), tar.NewWriter(w)
		const fileSize = harness.MiB
		for i := int64(0); i < size; i += fileSize {
			n := min(fileSize, size-i)
			require.NoError(t, layer.WriteHeader(&tar.Header{Name: fmt.Sprintf("noise-%d", i/fileSize), Mode: 0o644, Size: n}))
			_, err := io.CopyN(layer, random, n)
			require.NoError(t, err)
		}
		require.NoError(t, layer.Close())
	})
}

// PrepareLayer returns a new extraction of a layer.
func (d *Rig) PrepareLayer(t testing.TB, chain string) (key string, mounts []mount.Mount) {
	t.Helper()
	d.Serial++
	key = harness.Extraction("test", d.Serial, chain)
	mounts, err := d.Snapshotter.Prepare(d.Context, key, "", harness.WithRef(chain))
	require.NoError(t, err)
	return key, mounts
}

// Pull unpacks a layer and commits it, as containerd does.
func (d *Rig) Pull(t testing.TB, chain string, desc ocispec.Descriptor) (name string, err error) {
	t.Helper()
	key, mounts := d.PrepareLayer(t, chain)
	if _, err := d.Apply(d.Context, desc, mounts); err != nil {
		require.NoError(t, d.Snapshotter.Remove(d.Context, key), "as containerd does then")
		return "", err
	}
	d.Serial++
	name = fmt.Sprintf("test/%d/%s", d.Serial, chain)
	return name, d.Snapshotter.Commit(d.Context, name, key, harness.WithRef(chain))
}

// HasTemplate reports whether the base has the template of a layer.
func (d *Rig) HasTemplate(t testing.TB, chain string) bool {
	t.Helper()
	layer, err := d.Base.Layer(chain)
	require.NoError(t, err)
	for _, s := range d.Base.List(t) {
		if s.Name == layer.Dataset() {
			return s.HasSnapshot(layout.Extracted)
		}
	}
	return false
}
