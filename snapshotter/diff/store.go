package diff

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// sendSize is how much is sent to containerd at once. Each message is
	// acknowledged.
	sendSize = 1 << 20
	// reportInterval is how often the log reports the progress of a layer.
	reportInterval = 10 * time.Second
)

// store writes what write produces into containerd's store and returns its descriptor.
// A layer that fails leaves nothing in the store.
func (s *Service) store(ctx context.Context, config diff.Config, c Compress, write func(io.Writer, *current) error) (ocispec.Descriptor, error) {
	in := s.ingest(ctx, config)
	l := &stored{compressed: digest.Canonical.Digester(), raw: digest.Canonical.Digester(), in: in, failed: in.failed}
	defer l.report(ctx, in.ref, reportInterval)()
	err := l.write(c, func(w io.Writer) error { return write(w, &l.current) })
	if err == nil {
		desc := ocispec.Descriptor{MediaType: config.MediaType, Size: l.size, Digest: l.compressed.Digest()}
		if err = storeError(in.commit(desc, l.labels(config.Labels))); err == nil {
			return desc, nil
		}
	}
	in.abandon(ctx)
	return ocispec.Descriptor{}, err
}

// stored is a layer on its way into the store.
type stored struct {
	in              io.Writer
	failed          func() error // returns the error of the store, if it is known
	raw, compressed digest.Digester
	size            int64
	done            atomic.Int64 // bytes before compression, for the log
	current         current      // for the log
}

func (l *stored) write(c Compress, write func(io.Writer) error) error {
	out := &outlet{w: io.MultiWriter(l.in, l.compressed.Hash(), (*counter)(&l.size))}
	buffered := bufio.NewWriterSize(out, sendSize)
	compressed, err := c(buffered)
	if err != nil {
		return err
	}
	var digested io.Writer = l.raw.Hash()
	if _, same := compressed.(plain); same {
		l.raw, digested = l.compressed, io.Discard
	}
	if err := write(io.MultiWriter(gate{out.err, l.failed}, compressed, digested, (*progress)(&l.done))); err != nil {
		// Closing the compressor ends its goroutines. What it still writes is
		// discarded.
		out.fail(err)
		return errors.Join(err, compressed.Close())
	}
	if err := errors.Join(compressed.Close(), buffered.Flush()); err != nil {
		return storeError(err)
	}
	return storeError(out.err())
}

// outlet writes to the store until a write or fail ends that; then it discards the
// data. It returns no error to the compressor: pgzip, once it knows of an error, leaks
// its goroutine and buffers. The compressor writes in a goroutine of its own,
// concurrently with fail.
type outlet struct {
	w      io.Writer
	failed atomic.Pointer[error]
}

func (o *outlet) Write(b []byte) (int, error) {
	if o.err() == nil {
		if _, err := o.w.Write(b); err != nil {
			o.fail(err)
		}
	}
	return len(b), nil
}

// fail ends the writing with an error. The first error counts.
func (o *outlet) fail(err error) { o.failed.CompareAndSwap(nil, &err) }

// err returns the error that ended the writing, or nil.
func (o *outlet) err() error {
	if err := o.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// gate is written to before the compressor. It fails once the store has failed, so
// that the rest of the layer is not read.
type gate []func() error

func (g gate) Write(b []byte) (int, error) {
	for _, failed := range g {
		if err := failed(); err != nil {
			return len(b), storeError(err)
		}
	}
	return len(b), nil
}

type counter int64

func (c *counter) Write(b []byte) (int, error) { *c += counter(len(b)); return len(b), nil }

type progress atomic.Int64

func (p *progress) Write(b []byte) (int, error) {
	(*atomic.Int64)(p).Add(int64(len(b)))
	return len(b), nil
}

// report logs the progress of a layer that takes long, and the large file that is
// being written.
func (l *stored) report(ctx context.Context, ref string, every time.Duration) (stop func()) {
	began, end := time.Now(), make(chan struct{})
	go func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				log.G(ctx).WithField("ref", ref).WithField("bytes", l.done.Load()).WithField("for", time.Since(began).Round(time.Second)).
					WithFields(l.current.fields()).Info("creating layer")
			case <-end:
				return
			}
		}
	}()
	return func() { close(end) }
}

// labels returns the caller's labels and the label of the diff ID.
func (l *stored) labels(own map[string]string) map[string]string {
	own = maps.Clone(own)
	if own == nil {
		own = make(map[string]string)
	}
	own[labels.LabelUncompressed] = l.raw.Digest().String()
	return own
}

func storeError(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("containerd's content store: %w", err)
}
