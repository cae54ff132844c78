package diff

import (
	"archive/tar"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/typeurl/v2"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/anypb"
)

const sealed = ocispec.MediaTypeImageLayer + "+sealed"

// unsealed decrypts a layer with a key, byte by byte.
type unsealed struct {
	diff.StreamProcessor
	key byte
}

func (u unsealed) MediaType() string { return ocispec.MediaTypeImageLayer }

func (u unsealed) Read(b []byte) (int, error) {
	n, err := u.StreamProcessor.Read(b)
	for i := range b[:n] {
		b[i] ^= u.key
	}
	return n, err
}

// Processors are registered for the whole process, concurrently with tests that
// read them.
func init() {
	diff.RegisterProcessor(diff.StaticHandler(sealed, func(_ context.Context, from diff.StreamProcessor, payloads map[string]typeurl.Any) (diff.StreamProcessor, error) {
		key, ok := payloads["key"]
		if !ok || len(key.GetValue()) != 1 {
			return nil, errors.New("sealed without a key")
		}
		return unsealed{from, key.GetValue()[0]}, nil
	}))
}

// Apply uses the configured processor of a media type with the caller's payloads,
// reports the progress, and syncs the file system if asked to.
func TestApplyUsesTheOptionsOfTheCaller(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	a := newApplying(t, 100)
	layer := layerWith(t, tar.Header{Name: "sealed", Typeflag: tar.TypeReg})
	for i := range layer {
		layer[i] ^= 7
	}
	a.contents.Store = &onceStore{layer: layer, left: 100}
	a.desc.MediaType, a.desc.Size = sealed, int64(len(layer))

	_, err := a.apply(t)
	require.ErrorContains(t, err, "sealed without a key")

	var reported []int64
	applied, err := a.apply(t, diff.WithSyncFs(true),
		diff.WithPayloads(map[string]typeurl.Any{"key": &anypb.Any{Value: []byte{7}}}),
		diff.WithProgress(func(_ ocispec.Descriptor, at int64) { reported = append(reported, at) }))
	require.NoError(t, err)
	assert.FileExists(t, filepath.Join(a.dir, "sealed"))
	assert.Equal(t, ocispec.MediaTypeImageLayer, applied.MediaType)
	require.NotEmpty(t, reported)
	assert.Zero(t, reported[0])
	assert.Equal(t, a.desc.Size, reported[len(reported)-1])

	// A failure to sync is an error.
	root, err := os.Open(a.dir)
	require.NoError(t, err)
	require.NoError(t, root.Close())
	assert.Error(t, syncFS(root))
}

const piped = ocispec.MediaTypeImageLayer + "+piped"

func init() {
	diff.RegisterProcessor(diff.BinaryHandler("piped", ocispec.MediaTypeImageLayer, []string{piped}, "/bin/cat", nil, nil))
	diff.RegisterProcessor(diff.BinaryHandler("broken", ocispec.MediaTypeImageLayer, []string{piped + "+broken"}, "/bin/sh",
		[]string{"-c", "cat; echo no key >&2; exit 3"}, nil))
}

// A layer is decrypted by a program, as a containerd with zfstpl built in can be
// configured. The program has exited when everything is read, and its exit status
// counts.
func TestExternalProcessorReadsTheLayer(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	for range 20 {
		a := newApplying(t, 100)
		a.desc.MediaType = piped
		_, err := a.apply(t)
		require.NoError(t, err)
	}
	a := newApplying(t, 100)
	a.desc.MediaType = piped + "+broken"
	_, err := a.apply(t)
	require.ErrorContains(t, err, "no key")
}
