package diff

import (
	"bytes"
	"io"
	"testing"
	"testing/iotest"

	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// uncompressed reads a layer to its end.
func uncompressed(t *testing.T, mediaType string, r io.Reader) ([]byte, error) {
	t.Helper()
	s, err := uncompress(t.Context(), ocispec.Descriptor{MediaType: mediaType}, r, diff.ApplyConfig{})
	if err != nil {
		return nil, err
	}
	defer s.Close()
	return io.ReadAll(s.from)
}

// Only an unknown media type is NotImplemented: with that, containerd asks the next
// differ, which unpacks without a jail.
func TestOnlyUnknownMediaTypesAreNotImplemented(t *testing.T) {
	t.Parallel()
	_, err := uncompressed(t, "text/plain", bytes.NewReader(nil))
	require.ErrorIs(t, err, errdefs.ErrNotImplemented)
	for _, media := range []string{ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageLayerZstd, ocispec.MediaTypeImageLayer} {
		_, err = uncompressed(t, media, iotest.ErrReader(errStore))
		require.ErrorIs(t, err, errStore)
		assert.NotErrorIs(t, err, errdefs.ErrNotImplemented, media)
	}
	for _, head := range []string{"\x1f\x8b\x08", "\x1f\x8b\x08\x00\x00\x00\x00", "\x1f\x8b\x08\xff\x00\x00\x00\x00\x00\x00\x00"} {
		_, err = uncompressed(t, ocispec.MediaTypeImageLayerGzip, bytes.NewReader([]byte(head)))
		require.Error(t, err, "%q", head)
		assert.NotErrorIs(t, err, errdefs.ErrNotImplemented, "%q", head)
	}
}

// zeroFrame returns a zstd frame of zeros with a window of 2^log bytes, or, if log is
// 0, of one segment, which is decoded as a whole.
func zeroFrame(log, size int) []byte {
	frame := []byte{0x28, 0xb5, 0x2f, 0xfd, 0, byte(log-10) << 3}
	if log == 0 {
		frame = append(frame[:4], 0xa0, byte(size), byte(size>>8), byte(size>>16), byte(size>>24))
	}
	const blockSize = 128 << 10
	for ; size > blockSize; size -= blockSize {
		frame = append(frame, block3(blockSize<<3|1<<1)...)
	}
	return append(frame, block3(size<<3|1<<1|1)...)
}

// block3 returns a block that repeats one zero byte.
func block3(header int) []byte { return []byte{byte(header), byte(header >> 8), byte(header >> 16), 0} }

// A few bytes cannot make the decoder allocate a large window: not in the first frame,
// not in a later one, and not with another media type.
func TestLargeZstdWindowsAreRefused(t *testing.T) {
	t.Parallel()
	small := zeroFrame(20, 1000)
	media := []string{
		ocispec.MediaTypeImageLayerZstd, ocispec.MediaTypeImageLayerGzip,
		"application/vnd.docker.image.rootfs.diff.tar", "application/vnd.docker.image.rootfs.diff.tar.gzip",
	}
	for what, layer := range map[string][]byte{
		"far too large":      zeroFrame(29, 1000),
		"slightly too large": zeroFrame(28, 1000),
		"in a later frame":   append(bytes.Clone(small), zeroFrame(29, 1000)...),
		"after a skippable frame": append([]byte("\x50\x2a\x4d\x18\x02\x00\x00\x00xx"),
			zeroFrame(29, 1000)...),
		"one segment": zeroFrame(0, 256<<20),
	} {
		for _, m := range media {
			_, err := uncompressed(t, m, bytes.NewReader(layer))
			require.ErrorIs(t, err, errdefs.ErrInvalidArgument, "%s as %s", what, m)
			assert.ErrorContains(t, err, "window", "%s as %s", what, m)
		}
	}
	for what, layer := range map[string][]byte{
		"the largest window":        zeroFrame(27, 1000),
		"two frames":                append(bytes.Clone(small), small...),
		"more data than the window": zeroFrame(20, 5<<20),
		"one segment":               zeroFrame(0, 1<<20),
	} {
		for _, m := range media {
			got, err := uncompressed(t, m, bytes.NewReader(layer))
			require.NoError(t, err, "%s as %s", what, m)
			assert.Empty(t, bytes.Trim(got, "\x00"), "%s as %s", what, m)
			assert.NotEmpty(t, got, "%s as %s", what, m)
		}
	}
}
