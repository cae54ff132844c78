package diff

import (
	"fmt"
	"io"
	"runtime"
	"strings"

	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/zstd"
	"github.com/klauspost/pgzip"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Compress returns a writer that compresses into another one. Its Close ends the
// compressed data.
type Compress func(io.Writer) (io.WriteCloser, error)

// A compressor works on at most maxWorkers blocks at once, because each takes
// memory. The output depends on the size of the blocks and not on their number.
const (
	gzipBlock  = 512 << 10
	maxWorkers = 8
)

func workers() int { return min(runtime.GOMAXPROCS(0), maxWorkers) }

// compressor returns how to compress the result of a comparison. It sets the media
// type if none was requested.
func compressor(config *diff.Config) (Compress, error) {
	if config.Compressor != nil {
		if config.MediaType == "" {
			return nil, fmt.Errorf("a compressor needs a media type: %w", errdefs.ErrInvalidArgument)
		}
		return func(w io.Writer) (io.WriteCloser, error) { return config.Compressor(w, config.MediaType) }, nil
	}
	if config.MediaType == "" {
		config.MediaType = ocispec.MediaTypeImageLayerGzip
	}
	c, ok := compressors[config.MediaType]
	if !ok {
		return nil, fmt.Errorf("media type %q: %w", config.MediaType, errdefs.ErrNotImplemented)
	}
	return c, nil
}

var compressors = map[string]Compress{
	ocispec.MediaTypeImageLayer:     func(w io.Writer) (io.WriteCloser, error) { return plain{w}, nil },
	ocispec.MediaTypeImageLayerGzip: gzipped,
	ocispec.MediaTypeImageLayerZstd: func(w io.Writer) (io.WriteCloser, error) {
		return zstd.NewWriter(w, zstd.WithEncoderConcurrency(min(workers(), 4)))
	},
}

// Compression returns the Compress of a format: tar, tar+gzip or tar+zstd.
func Compression(format string) (Compress, error) {
	kind, ok := strings.CutPrefix(format, "tar")
	c := compressors[ocispec.MediaTypeImageLayer+kind]
	if !ok || c == nil {
		return nil, fmt.Errorf("unknown format %q: use tar, tar+gzip or tar+zstd: %w", format, errdefs.ErrInvalidArgument)
	}
	return c, nil
}

func gzipped(w io.Writer) (io.WriteCloser, error) {
	z := pgzip.NewWriter(w)
	return z, z.SetConcurrency(gzipBlock, workers())
}

type plain struct{ io.Writer }

func (plain) Close() error { return nil }
