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
	// leaseTime is how long a layer stays that nobody refers to. The caller's own
	// lease, if it has one, never reaches us.
	leaseExpiration = time.Hour
	// cleanTime bounds how long it is tried to take back what failed.
	rollbackTimeout = 10 * time.Second
	// partTime is how much of that a caller waits for who has given up.
	abandonTimeout = 500 * time.Millisecond
)

// ingest is where a layer goes in containerd's store. It is opened while what goes
// in is still looked for: a lease and an ingest cost containerd a commit to its
// database each, about as long as ZFS needs for a snapshot.
//
// A store that has stalled need not heed a context. So a call to it is waited for as
// long as the caller does, and goes on by itself then.
type ingest struct {
	ctx      context.Context // the caller's
	contents Contents
	ref      string
	calls    sync.WaitGroup // that have not ended
	buf      []byte         // of the last one

	opened chan struct{} // closed when what follows is known
	leased context.Context
	lease  *leases.Lease // nil where the caller has one
	w      content.Writer
	err    error
}

// ingest begins to open one. It is to be committed or abandoned.
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

// failed answers why it could not be opened, once that is known.
func (in *ingest) failed() error {
	select {
	case <-in.opened:
		return in.err
	default:
		return nil
	}
}

// ready waits until it is open.
func (in *ingest) ready() error {
	select {
	case <-in.opened:
		return in.err
	case <-in.ctx.Done():
		return context.Cause(in.ctx)
	}
}

// call makes a call to the store, and waits for its end or until the caller gives up.
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

// Write waits until it is open.
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

// commit makes what was written content. One that is there already is as good,
// save that it may lack the labels that say what it is.
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
			_ = in.w.Close() // it is committed: there is nothing to be lost by it
		}
		return err
	})
}

// describe gives content that was there its labels, where it has none of ours.
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

// abandon takes back all that was begun. A caller who has given up waits for a moment
// only: it goes on by itself, when a store that has stalled goes on.
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
		log.G(ctx).WithField("ref", in.ref).Warn("containerd's store has stalled: what was begun there is taken back when it goes on")
	}
}

// takeBack does what abandon is for, once no call is under way. What is left where it
// fails goes with its lease.
func (in *ingest) rollback(ctx context.Context) {
	<-in.opened
	in.calls.Wait()
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
	defer cancel()
	if in.w != nil {
		closeErr := in.w.Close()
		if err := in.contents.Store.Abort(clean, in.ref); err != nil && !errdefs.IsNotFound(err) {
			log.G(ctx).WithError(errors.Join(err, closeErr)).WithField("ref", in.ref).
				Warn("a layer that failed could not be taken out of containerd's store; it will be when its lease ends")
		}
	}
	if in.lease == nil {
		return
	}
	if err := in.contents.Leases.Delete(clean, *in.lease); err != nil && !errdefs.IsNotFound(err) {
		log.G(ctx).WithError(err).WithField("lease", in.lease.ID).Warn("a lease could not be given back; it ends within the hour")
	}
}
