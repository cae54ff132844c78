package diff

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/zstd"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/randtree"
)

// unpackInto unpacks a layer as Apply does.
func unpackInto(t *testing.T, dir, mediaType string, layer []byte) error {
	t.Helper()
	root, err := os.Open(dir)
	require.NoError(t, err)
	defer root.Close()
	s, err := uncompress(t.Context(), ocispec.Descriptor{MediaType: mediaType}, bytes.NewReader(layer), diff.ApplyConfig{})
	if err != nil {
		return err
	}
	defer s.Close()
	return jailed(root, func() error { return s.unpack(context.WithoutCancel(t.Context())) })
}

func layerWith(t *testing.T, entries ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		if h.Mode == 0 {
			h.Mode = 0o777
		}
		if h.Typeflag == tar.TypeReg && !strings.Contains(h.Name, ".wh.") {
			h.Size = 4
		}
		require.NoError(t, w.WriteHeader(&h))
		if h.Size > 0 {
			_, err := w.Write([]byte("evil"))
			require.NoError(t, err)
		}
	}
	require.NoError(t, w.Close())
	return b.Bytes()
}

// The resources that a layer uses are bounded, however small the layer is.
func TestExcessiveLayersAreRefused(t *testing.T) {
	t.Parallel()
	large := tar.Header{Name: "large", Typeflag: tar.TypeReg, Size: 600 * gibibyte}
	record := map[string]string{xattrKey + "user.x": strings.Repeat("x", 1<<20)}
	for what, c := range map[string]struct {
		entries []tar.Header
		message string
	}{
		"bytes of files":                     {[]tar.Header{large, large}, "larger than"},
		"a negative size":                    {[]tar.Header{{Name: "d/", Typeflag: tar.TypeDir, Size: -(1 << 62)}}, "-4611686018427387904 bytes"},
		"memory for directories":             {slices.Repeat([]tar.Header{{Name: "d/", Typeflag: tar.TypeDir, PAXRecords: record}}, 1024), "memory"},
		"a whiteout of no name":              {[]tar.Header{{Name: "link/.wh.", Typeflag: tar.TypeReg}}, "whiteout of an impossible name"},
		"a whiteout of its directory":        {[]tar.Header{{Name: ".wh..", Typeflag: tar.TypeReg}}, "whiteout of an impossible name"},
		"a whiteout of the parent directory": {[]tar.Header{{Name: ".wh...", Typeflag: tar.TypeReg}}, "whiteout of an impossible name"},
	} {
		pass := newLimits().pass
		var err error
		for i := 0; i < len(c.entries) && err == nil; i++ {
			h := c.entries[i]
			_, err = pass(&h)
		}
		require.ErrorIs(t, err, errdefs.ErrInvalidArgument, what)
		require.ErrorContains(t, err, c.message, what)
	}
	pass := newLimits().pass
	for range 1_000_000 {
		_, err := pass(&tar.Header{Name: "usr/share/some/what/deeper/path/", Typeflag: tar.TypeDir})
		require.NoError(t, err, "a million directories are allowed")
	}
}

// The header of a directory, which is kept to the end, keeps only what is needed.
func TestDirectoryHeadersAreTrimmed(t *testing.T) {
	t.Parallel()
	h := tar.Header{Name: "d/", Typeflag: tar.TypeDir, Uname: "user", Gname: "group", Mode: 0o750, Uid: 7, PAXRecords: map[string]string{
		"A.comment": strings.Repeat("x", 1<<20), xattrKey + "user.x": "value"}}
	trimHeader(&h)
	assert.Equal(t, map[string]string{xattrKey + "user.x": "value"}, h.PAXRecords)
	assert.Less(t, headerMemory(&h), int64(2*headerOverhead))
	assert.Equal(t, tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o750, Uid: 7, PAXRecords: h.PAXRecords}, h)
}

// A whiteout of the root directory deletes nothing, although the root is "/" here.
func TestWhiteoutOfTheRootIsRefused(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	for _, name := range []string{".wh.", ".wh..", ".wh..."} {
		dir := t.TempDir()
		write(t, dir, "lower")
		err := unpackInto(t, dir, ocispec.MediaTypeImageLayer, layerWith(t, tar.Header{Name: name, Typeflag: tar.TypeReg}))
		assert.ErrorIs(t, err, errdefs.ErrInvalidArgument, name)
		assert.FileExists(t, filepath.Join(dir, "lower"), name)
	}
}

// For any combination of names, links and types, an archive creates, changes and
// deletes nothing outside of the root, and the root stays a directory.
func TestHostileArchivesStayInTheRoot(t *testing.T) {
	needsRoot(t)
	t.Parallel()
	names := []string{
		"..", "../evil", "../outside/victim", "../../../../../../../outside/victim", "/../evil", "a/../../evil",
		"./../outside/victim", "", ".", "/", "//", "./", "//evil", "a//b", "a/./b", "a/", "/etc/../../outside/victim",
		".wh.", ".wh..", ".wh...", ".wh.../evil", ".wh..wh..", ".wh..wh..opq", ".wh..wh.plnk", "..wh..", ".wh.victim",
		"a/.wh..", "a/.wh...", "../.wh.outside", "../outside/.wh.victim", "../outside/.wh..wh..opq",
		"abs", "abs/victim", "abs/new", "abs/.wh.victim", "abs/.wh..wh..opq", "abs/dir/new",
		"up", "up/outside/victim", "up/outside/.wh.victim", "up/outside/.wh..wh..opq", "up/new",
		"loop", "loop/x", "root", "root/outside/victim", "dangling", "dangling/x", "hard", "dots/victim", "dots/../../evil",
		strings.Repeat("a/", 200) + "x", strings.Repeat("x", 300), "new\nline", "nul\\0", "evil\x00../victim",
	}
	types := map[string]byte{
		"file": tar.TypeReg, "directory": tar.TypeDir, "symbolic link": tar.TypeSymlink, "hard link": tar.TypeLink, "fifo": tar.TypeFifo,
	}
	targets := []string{"/outside/victim", "../outside/victim", "abs/victim", ".."}
	cases := 0
	for _, name := range names {
		for what, flag := range types {
			for i, target := range targets {
				if flag != tar.TypeSymlink && flag != tar.TypeLink && i > 0 {
					continue
				}
				cases++
				h := tar.Header{Name: name, Typeflag: flag}
				if flag == tar.TypeSymlink || flag == tar.TypeLink {
					h.Linkname = target
				}
				t.Run(fmt.Sprintf("%.40q as %s to %s", name, what, target), func(t *testing.T) {
					t.Parallel()
					hostile(t, h)
				})
			}
		}
	}
	assert.Greater(t, cases, 100)
}

// hostile unpacks an archive that first sets traps and then uses them.
func hostile(t *testing.T, h tar.Header) {
	dir := t.TempDir()
	root, outside := filepath.Join(dir, "root"), filepath.Join(dir, "outside")
	write(t, outside, "victim", "dir/in")
	require.NoError(t, os.Mkdir(root, 0o755))
	before := read(t, dir)
	traps := []tar.Header{
		{Name: "a/", Typeflag: tar.TypeDir},
		{Name: "abs", Typeflag: tar.TypeSymlink, Linkname: outside},
		{Name: "up", Typeflag: tar.TypeSymlink, Linkname: "../"},
		{Name: "dots", Typeflag: tar.TypeSymlink, Linkname: "../outside"},
		{Name: "loop", Typeflag: tar.TypeSymlink, Linkname: "loop"},
		{Name: "root", Typeflag: tar.TypeSymlink, Linkname: "/"},
		{Name: "dangling", Typeflag: tar.TypeSymlink, Linkname: "/nowhere"},
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if w.WriteHeader(&h) != nil {
		return // an archive cannot have that entry
	}
	require.NoError(t, unpackInto(t, root, ocispec.MediaTypeImageLayer, layerWith(t, traps...)))
	// Then the same as one archive, and again on top of its result.
	for range 2 {
		if err := unpackInto(t, root, ocispec.MediaTypeImageLayer, layerWith(t, append(traps, h, h)...)); err != nil {
			assert.NotContains(t, err.Error(), "panic")
		}
	}
	after := read(t, dir)
	for name := range after {
		if strings.HasPrefix(name, "/root") {
			delete(after, name)
		}
	}
	delete(before, "/root")
	assert.Empty(t, randtree.Differences(before, after), "outside of the root")
	i, err := os.Lstat(root)
	require.NoError(t, err)
	assert.True(t, i.IsDir())
}

// A truncated or damaged archive is an error, however it is compressed and wherever
// the damage is. containerd then removes what was unpacked.
func TestDamagedLayersAreErrors(t *testing.T) {
	needsRoot(t)
	t.Parallel()
	var entries []tar.Header
	for i := range 20 {
		entries = append(entries, tar.Header{Name: fmt.Sprintf("file%d", i), Typeflag: tar.TypeReg})
	}
	plainLayer := layerWith(t, entries...)
	for media, compressed := range map[string][]byte{
		ocispec.MediaTypeImageLayerGzip: packed(t, plainLayer, func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }),
		ocispec.MediaTypeImageLayerZstd: packed(t, plainLayer, func(w io.Writer) io.WriteCloser {
			z, err := zstd.NewWriter(w)
			require.NoError(t, err)
			return z
		}),
	} {
		require.NoError(t, unpackInto(t, t.TempDir(), media, compressed))
		for _, size := range []int{1, 4, 10, 20, len(compressed) / 2, len(compressed) - 10, len(compressed) - 1} {
			assert.Error(t, unpackInto(t, t.TempDir(), media, compressed[:size]), "%s truncated to %d of %d", media, size, len(compressed))
		}
		for at := 0; at < len(compressed); at += len(compressed)/10 + 1 {
			damaged := bytes.Clone(compressed)
			damaged[at] ^= 0xff
			dir := t.TempDir()
			if unpackInto(t, dir, media, damaged) == nil { // some bytes have no effect
				assert.Len(t, read(t, dir), len(entries), "%s with byte %d wrong", media, at)
			}
		}
	}
	for size := 512; size < 512*40; size += 512 {
		if size%1024 != 0 { // in the middle of a file
			assert.Error(t, unpackInto(t, t.TempDir(), ocispec.MediaTypeImageLayer, plainLayer[:size-300]), "truncated to %d", size-300)
		}
	}
	assert.ErrorContains(t, unpackInto(t, t.TempDir(), "text/plain", plainLayer), "text/plain")
}

func packed(t *testing.T, b []byte, with func(io.Writer) io.WriteCloser) []byte {
	t.Helper()
	var out bytes.Buffer
	w := with(&out)
	_, err := w.Write(b)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return out.Bytes()
}
