package diff

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/zstd"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// windowLimit is the largest zstd window, which is kept in memory. It is the default
// limit of the zstd command. containerd's own code allows four times as much, which a
// few bytes of a layer can request.
const windowLimit = 128 << 20

// headSize is how many bytes identify a compression format.
const headSize = 10

// process removes the outermost encoding of a layer. Data in the zstd format, whatever
// its media type says, is decoded here, and anything else by containerd.
func process(ctx context.Context, from diff.StreamProcessor, config diff.ApplyConfig) (diff.StreamProcessor, error) {
	if kind, err := images.DiffCompression(ctx, from.MediaType()); err != nil || kind == "" {
		return diff.GetProcessor(ctx, from, config.ProcessorPayloads)
	}
	in := bufio.NewReader(from)
	head, err := in.Peek(headSize)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if compression.DetectCompression(head) != compression.Zstd {
		return diff.GetProcessor(ctx, peeked{from, in}, config.ProcessorPayloads)
	}
	z, err := zstd.NewReader(in, zstd.WithDecoderLowmem(false), zstd.WithDecoderMaxWindow(windowLimit))
	if err != nil {
		return nil, err
	}
	return unzstd{z}, nil
}

// peeked is a step whose first bytes were peeked at.
type peeked struct {
	diff.StreamProcessor
	in io.Reader
}

func (p peeked) Read(b []byte) (int, error) { return p.in.Read(b) }

// unzstd is the step that decodes zstd.
type unzstd struct{ z *zstd.Decoder }

func (unzstd) MediaType() string { return ocispec.MediaTypeImageLayer }

func (u unzstd) Read(b []byte) (int, error) {
	n, err := u.z.Read(b)
	if errors.Is(err, zstd.ErrWindowSizeExceeded) || errors.Is(err, zstd.ErrDecoderSizeExceeded) {
		err = fmt.Errorf("zstd: the layer needs a window larger than the limit of %d bytes: %w: %w",
			int64(windowLimit), err, errdefs.ErrInvalidArgument)
	}
	return n, err
}

func (u unzstd) Close() error {
	u.z.Close()
	return nil
}
