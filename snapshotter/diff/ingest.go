package diff

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// leaseExpiration is how long the store keeps a layer that nothing references. The
	// caller's own lease, if it has one, does not reach a proxy.
	leaseExpiration = time.Hour
	// rollbackTimeout bounds the rollback of a failed ingest.
	rollbackTimeout = 10 * time.Second
	// abandonTimeout is how much of that a caller whose context has ended waits for.
	abandonTimeout = 500 * time.Millisecond
)

// ingest writes a layer into containerd's store. It is opened while the changes are
// still being searched for: a lease and an ingest cost containerd a commit to its
// database each, which takes about as long as a ZFS snapshot.
//
// A store that has stalled need not react to a context. A call to it is therefore
// waited for until the caller's context ends, and then continues in the background.
type ingest struct {
	ctx      context.Context // the caller's
	contents Contents
	ref      string
	calls    sync.WaitGroup // calls that have not ended
	buf      []byte         // the data of the last call

	opened chan struct{} // closed when the fields below are set
	leased context.Context
	lease  *leases.Lease // nil if the caller has one
	w      content.Writer
	err    error
}

// ingest begins to open an ingest. The caller must commit or abandon it.
func (s *Service) ingest(ctx context.Context, config diff.Config) *ingest {
	in := &ingest{ctx: ctx, contents: s.contents, ref: config.Reference, opened: make(chan struct{})}
	if in.ref == "" {
		in.ref = "zfstpl-diff-" + rand.Text()
	}
	go func() {
		defer close(in.opened)
		if err := in.open(ctx, config.MediaType); err != nil {
			in.err = unreachable{err}
		}
	}()
	return in
}

func (in *ingest) open(ctx context.Context, mediaType string) error {
	in.leased = ctx
	if _, ok := leases.FromContext(ctx); !ok {
		lease, err := in.contents.Leases.Create(ctx, leases.WithID("zfstpl-diff-"+rand.Text()), leases.WithExpiration(leaseExpiration))
		if err != nil {
			return err
		}
		in.lease, in.leased = &lease, leases.WithLease(ctx, lease.ID)
	}
	w, err := in.contents.Store.Writer(in.leased, content.WithRef(in.ref),
		content.WithDescriptor(ocispec.Descriptor{MediaType: mediaType}))
	if err != nil {
		return err
	}
	in.w = w
	return w.Truncate(0)
}

// failed returns why opening failed, as soon as that is known.
func (in *ingest) failed() error {
	select {
	case <-in.opened:
		return in.err
	default:
		return nil
	}
}

// ready waits until the ingest is open.
func (in *ingest) ready() error {
	select {
	case <-in.opened:
		return in.err
	case <-in.ctx.Done():
		return context.Cause(in.ctx)
	}
}

// call makes a call to the store and waits for its end or for the end of the caller's
// context.
func (in *ingest) call(f func() error) error {
	ended := make(chan error, 1)
	in.calls.Go(func() { ended <- f() })
	select {
	case err := <-ended:
		return err
	case <-in.ctx.Done():
		return context.Cause(in.ctx)
	}
}

// Write waits until the ingest is open.
func (in *ingest) Write(b []byte) (int, error) {
	if err := in.ready(); err != nil {
		return 0, err
	}
	if in.ctx.Err() != nil {
		return 0, context.Cause(in.ctx) // the last call may still have the buffer
	}
	in.buf = append(in.buf[:0], b...)
	err := in.call(func() error {
		n, err := in.w.Write(in.buf)
		if err == nil && n < len(in.buf) {
			err = io.ErrShortWrite
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	return len(b), nil
}

// commit commits what was written. Content that exists already counts as committed;
// commit adds the labels that it may lack.
func (in *ingest) commit(desc ocispec.Descriptor, own map[string]string) error {
	if err := in.ready(); err != nil {
		return err
	}
	return in.call(func() error {
		err := in.w.Commit(in.leased, desc.Size, desc.Digest, content.WithLabels(own))
		if errdefs.IsAlreadyExists(err) {
			err = in.describe(desc, own)
		}
		if err == nil {
			_ = in.w.Close() // nothing can be lost after the commit
		}
		return err
	})
}

// describe adds labels to content that existed, unless it has the label of its diff
// ID.
func (in *ingest) describe(desc ocispec.Descriptor, own map[string]string) error {
	info, err := in.contents.Store.Info(in.leased, desc.Digest)
	if err != nil || info.Labels[labels.LabelUncompressed] != "" {
		return err
	}
	info.Labels = own
	var fields []string
	for name := range own {
		fields = append(fields, "labels."+name)
	}
	_, err = in.contents.Store.Update(in.leased, info, fields...)
	return err
}

// abandon rolls the ingest back. If the caller's context has ended, abandon waits only
// for abandonTimeout, and the rollback continues in the background as soon as the
// store does.
func (in *ingest) abandon(ctx context.Context) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		in.rollback(ctx)
	}()
	select {
	case <-ended:
		return
	case <-ctx.Done():
	}
	select {
	case <-ended:
	case <-time.After(abandonTimeout):
		log.G(ctx).WithField("ref", in.ref).Warn("content store has stalled; rolling the ingest back in the background")
	}
}

// rollback removes the ingest and its lease when no call is running. What it fails to
// remove expires with the lease.
func (in *ingest) rollback(ctx context.Context) {
	<-in.opened
	in.calls.Wait()
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
	defer cancel()
	if in.w != nil {
		closeErr := in.w.Close()
		if err := in.contents.Store.Abort(clean, in.ref); err != nil && !errdefs.IsNotFound(err) {
			log.G(ctx).WithError(errors.Join(err, closeErr)).WithField("ref", in.ref).
				Warn("failed to abort the ingest of a failed layer; it expires with its lease")
		}
	}
	if in.lease == nil {
		return
	}
	if err := in.contents.Leases.Delete(clean, *in.lease); err != nil && !errdefs.IsNotFound(err) {
		log.G(ctx).WithError(err).WithField("lease", in.lease.ID).Warn("failed to delete lease; it expires within an hour")
	}
}
