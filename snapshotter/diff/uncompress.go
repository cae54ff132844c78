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

// windowLimit is how far a zstd layer may look back, all of which has to be kept
// in memory. It is what the zstd command allows unless it is asked for more.
// containerd's own code allows four times as much, for a few bytes of a layer.
const windowLimit = 128 << 20

// headSize is how many bytes tell how something is compressed.
const headSize = 10

// process takes away what is outermost around a layer. What is written by zstd,
// whatever its media type says of it, is read here, and the rest by containerd.
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

// peeked is a step whose first bytes were looked at.
type peeked struct {
	diff.StreamProcessor
	in io.Reader
}

func (p peeked) Read(b []byte) (int, error) { return p.in.Read(b) }

// unzstd is the step that takes zstd's compression away.
type unzstd struct{ z *zstd.Decoder }

func (unzstd) MediaType() string { return ocispec.MediaTypeImageLayer }

func (u unzstd) Read(b []byte) (int, error) {
	n, err := u.z.Read(b)
	if errors.Is(err, zstd.ErrWindowSizeExceeded) || errors.Is(err, zstd.ErrDecoderSizeExceeded) {
		err = fmt.Errorf("zstd: the layer has to be read with a window of more than %d bytes, which none may have: %w: %w",
			int64(windowLimit), err, errdefs.ErrInvalidArgument)
	}
	return n, err
}

func (u unzstd) Close() error {
	u.z.Close()
	return nil
}
