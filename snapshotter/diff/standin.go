package diff

import (
	"context"
	"errors"
	"io"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// knownLayer is what is known of a layer that is in the pool.
type knownLayer struct {
	diffID digest.Digest // of the uncompressed layer, or ""
	blob   digest.Digest // of the blob it was unpacked from, or ""
}

// recognize is Apply into a stand-in, which has the layer's content already. It
// unpacks nothing and returns the descriptor of the uncompressed layer: at once for
// the blob that the layer was unpacked from, and after reading all of any other blob.
// The size of a blob that is not read is unknown and returned as 0; containerd uses
// the digest only.
//
//	NotFound         the blob is not in containerd's store
//	InvalidArgument  the blob is that of another layer
func (s *Service) recognize(ctx context.Context, desc ocispec.Descriptor, runtime string, known knownLayer, config diff.ApplyConfig) (ocispec.Descriptor, error) {
	ctx, giveUp := context.WithCancel(ctx)
	defer giveUp()
	in, err := s.contents.Store.ReaderAt(ctx, desc)
	if err != nil {
		return ocispec.Descriptor{}, storeError(err)
	}
	defer in.Close() // opened for reading only
	if known.diffID != "" && known.blob == desc.Digest && isPlain(desc.MediaType) {
		if config.Progress != nil {
			config.Progress(desc.Size)
		}
		log.G(ctx).WithField("digest", desc.Digest).WithField("dataset", runtime).Debug("layer is in the pool; not unpacking it")
		return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: known.diffID}, nil
	}
	fetched := readAhead(content.NewReader(in), fetchSize, 2)
	defer func() { giveUp(); fetched.Close() }()
	stream, err := uncompress(ctx, desc, fetched, config)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	err = stream.finish(ctx)
	if err != nil {
		giveUp()
	}
	if err := errors.Join(err, stream.Close()); err != nil {
		return ocispec.Descriptor{}, err
	}
	diffID := stream.digest.Digest()
	if err := s.extractions.Recognize(ctx, runtime, diffID, desc.Digest); err != nil {
		return ocispec.Descriptor{}, err
	}
	log.G(ctx).WithField("digest", desc.Digest).WithField("dataset", runtime).Debug("layer is in the pool; read its blob without unpacking it")
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Size: stream.size, Digest: diffID}, nil
}

// isPlain reports whether a layer of a media type can be read with the layer alone. An
// encrypted layer needs a key, and a caller without the key must not get it.
func isPlain(mediaType string) bool {
	base, steps, _ := strings.Cut(mediaType, "+")
	return images.IsLayerType(base) && (steps == "" || steps == "gzip" || steps == "zstd")
}

// finish reads a layer to its end: what follows the archive is part of the digest, and
// a program that reads the layer may report its result some time later.
func (s *stream) finish(ctx context.Context) error {
	if _, err := io.Copy(io.Discard, s.from); err != nil {
		return err
	}
	for _, step := range s.steps {
		if err := stepError(ctx, step); err != nil {
			return err
		}
	}
	return nil
}
