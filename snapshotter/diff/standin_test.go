package diff

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
)

// standIns is a snapshotter whose runtimes are all stand-ins for one layer. Nothing
// may be written to them: there is no pool, and a call to any other method panics.
type standIns struct {
	Extractions
	known      knownLayer
	wrong      error
	recognized []string
}

func (s *standIns) NamespaceOf(string) string { return "test" }
func (s *standIns) IsExtraction(string) bool  { return true }
func (s *standIns) StandIn(string) (diffID, blob digest.Digest, ok bool) {
	return s.known.diffID, s.known.blob, true
}

func (s *standIns) Recognize(_ context.Context, runtime string, diffID, blob digest.Digest) error {
	s.recognized = append(s.recognized, fmt.Sprintf("%s %s %s", runtime, diffID, blob))
	return s.wrong
}

// blobs is a store that counts the bytes that are read.
type blobs struct {
	content.Store
	all  map[digest.Digest][]byte
	read int
}

type blobReader struct {
	*bytes.Reader
	of *blobs
}

func (r blobReader) Close() error { return nil }
func (r blobReader) ReadAt(p []byte, at int64) (int, error) {
	n, err := r.Reader.ReadAt(p, at)
	r.of.read += n
	return n, err
}

func (b *blobs) ReaderAt(_ context.Context, desc ocispec.Descriptor) (content.ReaderAt, error) {
	blob, ok := b.all[desc.Digest]
	if !ok {
		return nil, errdefs.ErrNotFound
	}
	return blobReader{bytes.NewReader(blob), b}, nil
}

// Apply unpacks nothing into a stand-in. It does not read the blob that the layer was
// unpacked from, and hashes any other blob.
func TestApplyIntoAStandInUnpacksNothing(t *testing.T) {
	t.Parallel()
	tar := bytes.Repeat([]byte("layer "), 1000) // the content does not matter
	var zipped bytes.Buffer
	w := gzip.NewWriter(&zipped)
	_, err := w.Write(tar)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	gz := zipped.Bytes()
	diffID, blob := digest.FromBytes(tar), digest.FromBytes(gz)
	base, err := layout.ParseBase("tank/zfstpl")
	require.NoError(t, err)
	runtime := base.Clone("extract", layout.NewID())
	gzipped := ocispec.MediaTypeImageLayerGzip

	for what, c := range map[string]struct {
		known     knownLayer
		mediaType string
		blob      []byte
		missing   bool  // the blob is not in the store
		wrong     error // of Recognize
		want      error
		read      bool // the blob may be read, at least ahead
	}{
		"the same blob":              {knownLayer{diffID, blob}, gzipped, gz, false, nil, nil, false},
		"the same blob, Docker type": {knownLayer{diffID, blob}, "application/vnd.docker.image.rootfs.diff.tar.gzip", gz, false, nil, nil, false},
		"another blob":               {knownLayer{diffID, diffID}, gzipped, gz, false, nil, nil, true},
		"the layer itself":           {knownLayer{diffID, blob}, ocispec.MediaTypeImageLayer, tar, false, nil, nil, true},
		"an unknown blob":            {knownLayer{diffID, ""}, gzipped, gz, false, nil, nil, true},
		"an unknown layer":           {knownLayer{"", ""}, gzipped, gz, false, nil, nil, true},
		"a blob without a layer":     {knownLayer{"", blob}, gzipped, gz, false, nil, nil, true},
		"another layer":              {knownLayer{diffID, ""}, gzipped, gz, false, errdefs.ErrInvalidArgument, errdefs.ErrInvalidArgument, true},
		"the same blob is missing":   {knownLayer{diffID, blob}, gzipped, gz, true, nil, errdefs.ErrNotFound, false},
		"another blob is missing":    {knownLayer{diffID, diffID}, gzipped, gz, true, nil, errdefs.ErrNotFound, false},
		"a truncated blob":           {knownLayer{diffID, diffID}, gzipped, gz[:len(gz)-4], false, nil, nil, true},
		"an encrypted type":          {knownLayer{diffID, blob}, gzipped + "+encrypted", gz, false, nil, nil, true},
		"an unknown media type":      {knownLayer{diffID, blob}, "text/plain", gz, false, nil, errdefs.ErrNotImplemented, true},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			store := &blobs{all: map[digest.Digest][]byte{}}
			desc := ocispec.Descriptor{MediaType: c.mediaType, Digest: digest.FromBytes(c.blob), Size: int64(len(c.blob))}
			if !c.missing {
				store.all[desc.Digest] = c.blob
			}
			snapshots := &standIns{known: c.known, wrong: c.wrong}
			progress := int64(-1)
			applied, err := New(base, nil, Contents{Store: store}, snapshots).Apply(t.Context(), desc,
				[]mount.Mount{{Type: "zfs", Source: runtime}}, diff.WithProgress(func(_ ocispec.Descriptor, n int64) { progress = n }))
			truncated := what == "a truncated blob"
			switch {
			case truncated:
				require.Error(t, err)
			case c.want != nil:
				require.ErrorIs(t, err, c.want)
			default:
				require.NoError(t, err)
				assert.Equal(t, diffID, applied.Digest)
				assert.Equal(t, ocispec.MediaTypeImageLayer, applied.MediaType)
				assert.Equal(t, desc.Size, progress, "all of the blob")
			}
			if !c.read {
				assert.Zero(t, store.read)
			}
			if !c.read || errors.Is(err, errdefs.ErrNotImplemented) {
				assert.Empty(t, snapshots.recognized)
			} else if err == nil {
				assert.Equal(t, []string{fmt.Sprintf("%s %s %s", runtime, diffID, desc.Digest)}, snapshots.recognized)
				assert.EqualValues(t, len(tar), applied.Size)
			}
		})
	}
}
