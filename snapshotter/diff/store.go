package diff

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// leaseTime is how long a layer stays that nobody refers to. The caller's own
	// lease, if it has one, never reaches us.
	leaseTime = time.Hour
	// sendSize is how much goes to containerd at once. Each time it is asked
	// whether that arrived.
	sendSize = 1 << 20
	// sayEvery is how often the log tells how far a long one is.
	sayEvery = 10 * time.Second
	// cleanTime bounds how long it is tried to take back what failed.
	cleanTime = 10 * time.Second
)

// store writes what write makes into containerd's store and answers what it is
// there. A layer that cannot be made leaves nothing.
func (s *Service) store(ctx context.Context, config diff.Config, c Compress, write func(io.Writer) error) (_ ocispec.Descriptor, err error) {
	ctx, release, err := s.lease(ctx)
	if err != nil {
		return ocispec.Descriptor{}, storeError(err)
	}
	if config.Reference == "" {
		config.Reference = "zfstpl-diff-" + rand.Text()
	}
	in, err := s.contents.Store.Writer(ctx, content.WithRef(config.Reference),
		content.WithDescriptor(ocispec.Descriptor{MediaType: config.MediaType}))
	if err != nil {
		release()
		return ocispec.Descriptor{}, storeError(err)
	}
	defer func() {
		closeErr := in.Close()
		if err == nil {
			return // it is committed; there is nothing to be lost by a close
		}
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTime)
		defer cancel()
		if abortErr := s.contents.Store.Abort(clean, config.Reference); abortErr != nil && !errdefs.IsNotFound(abortErr) {
			log.G(ctx).WithError(errors.Join(abortErr, closeErr)).WithField("ref", config.Reference).
				Warn("a layer that failed could not be taken out of containerd's store; it will be when its lease ends")
		}
		release()
	}()
	if err := in.Truncate(0); err != nil {
		return ocispec.Descriptor{}, storeError(err)
	}
	l := &stored{compressed: digest.Canonical.Digester(), raw: digest.Canonical.Digester(), in: in}
	defer l.report(ctx, config.Reference)()
	if err := l.write(c, write); err != nil {
		return ocispec.Descriptor{}, err
	}
	return s.commit(ctx, l, config)
}

// lease answers a context in which containerd's collections leave alone what is
// written, and what takes the lease back where nothing came of it.
func (s *Service) lease(ctx context.Context) (_ context.Context, release func(), err error) {
	if _, ok := leases.FromContext(ctx); ok {
		return ctx, func() {}, nil
	}
	lease, err := s.contents.Leases.Create(ctx, leases.WithID("zfstpl-diff-"+rand.Text()), leases.WithExpiration(leaseTime))
	if err != nil {
		return ctx, nil, err
	}
	return leases.WithLease(ctx, lease.ID), func() {
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTime)
		defer cancel()
		if err := s.contents.Leases.Delete(clean, lease); err != nil && !errdefs.IsNotFound(err) {
			log.G(ctx).WithError(err).WithField("lease", lease.ID).Warn("a lease could not be given back; it ends within the hour")
		}
	}, nil
}

// stored is a layer on its way into the store.
type stored struct {
	in              content.Writer
	raw, compressed digest.Digester
	size            int64
	done            atomic.Int64 // bytes before compression, for the log
}

func (l *stored) write(c Compress, write func(io.Writer) error) error {
	out := &outlet{w: io.MultiWriter(l.in, l.compressed.Hash(), (*counter)(&l.size))}
	buffered := bufio.NewWriterSize(out, sendSize)
	compressed, err := c(buffered)
	if err != nil {
		return err
	}
	if err := write(io.MultiWriter(gate{out}, compressed, l.raw.Hash(), (*progress)(&l.done))); err != nil {
		// What compresses is ended, to let its goroutines go. What it writes then
		// is thrown away with the rest.
		out.shut(err)
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
			o.shut(err)
		}
	}
	return len(b), nil
}

// shut closes an outlet for a reason. The first one stays.
func (o *outlet) shut(why error) { o.failed.CompareAndSwap(nil, &why) }

// err answers why an outlet is shut, or nil.
func (o *outlet) err() error {
	if why := o.failed.Load(); why != nil {
		return *why
	}
	return nil
}

// gate stands before what compresses and lets nothing more in when the store has
// failed: the rest of the layer need not be read.
type gate struct{ out *outlet }

func (g gate) Write(b []byte) (int, error) { return len(b), storeError(g.out.err()) }

type counter int64

func (c *counter) Write(b []byte) (int, error) { *c += counter(len(b)); return len(b), nil }

type progress atomic.Int64

func (p *progress) Write(b []byte) (int, error) {
	(*atomic.Int64)(p).Add(int64(len(b)))
	return len(b), nil
}

// report has the log tell of a layer that takes long.
func (l *stored) report(ctx context.Context, ref string) (stop func()) {
	began, end := time.Now(), make(chan struct{})
	go func() {
		tick := time.NewTicker(sayEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				log.G(ctx).WithField("ref", ref).WithField("bytes", l.done.Load()).
					WithField("for", time.Since(began).Round(time.Second)).Info("a layer is being made")
			case <-end:
				return
			}
		}
	}()
	return func() { close(end) }
}

// commit makes what was written content. One that is there already is as good,
// save that it may lack the label that says what it is without compression.
func (s *Service) commit(ctx context.Context, l *stored, config diff.Config) (ocispec.Descriptor, error) {
	own := maps.Clone(config.Labels)
	if own == nil {
		own = make(map[string]string)
	}
	own[labels.LabelUncompressed] = l.raw.Digest().String()
	desc := ocispec.Descriptor{MediaType: config.MediaType, Size: l.size, Digest: l.compressed.Digest()}
	err := l.in.Commit(ctx, desc.Size, desc.Digest, content.WithLabels(own))
	if err == nil {
		return desc, nil
	}
	if !errdefs.IsAlreadyExists(err) {
		return ocispec.Descriptor{}, storeError(err)
	}
	info, err := s.contents.Store.Info(ctx, desc.Digest)
	if err != nil {
		return ocispec.Descriptor{}, storeError(err)
	}
	if info.Labels[labels.LabelUncompressed] != "" {
		return desc, nil
	}
	info.Labels = own
	var fields []string
	for name := range own {
		fields = append(fields, "labels."+name)
	}
	_, err = s.contents.Store.Update(ctx, info, fields...)
	return desc, storeError(err)
}

func storeError(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("containerd's content store: %w", err)
}
