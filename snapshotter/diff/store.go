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
	// sendSize is how much goes to containerd at once. Each time it is asked
	// whether that arrived.
	sendSize = 1 << 20
	// sayEvery is how often the log tells how far a long one is.
	reportInterval = 10 * time.Second
)

// store writes what write makes into containerd's store and answers what it is
// there. A layer that cannot be made leaves nothing.
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
	failed          func() error // why the store takes no more, as far as is known
	raw, compressed digest.Digester
	size            int64
	done            atomic.Int64 // bytes before compression, for the log
	current         current      // likewise
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
		// What compresses is ended, to let its goroutines go. What it writes then
		// is thrown away with the rest.
		out.fail(err)
		return errors.Join(err, compressed.Close())
	}
	if err := errors.Join(compressed.Close(), buffered.Flush()); err != nil {
		return storeError(err)
	}
	return storeError(out.err())
}

// outlet leads to the store until that fails or the outlet is shut; then it throws
// away what comes. Whoever compresses is told of no error: pgzip, once it knows of
// one, does not let its goroutine and buffers go. It writes in a goroutine of its
// own, which an outlet may be shut beside.
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

// shut closes an outlet for a reason. The first one stays.
func (o *outlet) fail(why error) { o.failed.CompareAndSwap(nil, &why) }

// err answers why an outlet is shut, or nil.
func (o *outlet) err() error {
	if why := o.failed.Load(); why != nil {
		return *why
	}
	return nil
}

// gate stands before what compresses and lets nothing more in when the store has
// failed: the rest of the layer need not be read.
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

// report has the log name a layer that takes long, and a file that does.
func (l *stored) report(ctx context.Context, ref string, every time.Duration) (stop func()) {
	began, end := time.Now(), make(chan struct{})
	go func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				log.G(ctx).WithField("ref", ref).WithField("bytes", l.done.Load()).WithField("for", time.Since(began).Round(time.Second)).
					WithFields(l.current.fields()).Info("a layer is being made")
			case <-end:
				return
			}
		}
	}()
	return func() { close(end) }
}

// labels answers those of the caller and what the layer is without compression.
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
