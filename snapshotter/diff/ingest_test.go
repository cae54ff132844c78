package diff

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// leaseless fails to create a lease when may is closed.
type leaseless struct {
	leases.Manager
	may chan struct{}
}

func (l leaseless) Create(context.Context, ...leases.Opt) (leases.Lease, error) {
	<-l.may
	return leases.Lease{}, errStore
}

// A layer begins before containerd has opened an ingest, and fails as soon as opening
// fails, even if nothing is sent yet.
func TestLayerDoesNotWaitForTheStore(t *testing.T) {
	t.Parallel()
	for media, c := range compressors {
		may := make(chan struct{})
		s := &Service{contents: Contents{Leases: leaseless{may: may}}}
		_, err := s.store(t.Context(), diff.Config{MediaType: media}, c, func(w io.Writer, _ *current) error {
			if _, err := io.WriteString(w, "begun"); !assert.NoError(t, err) {
				return err
			}
			close(may)
			for {
				if _, err := w.Write(nil); err != nil {
					return err
				}
			}
		})
		require.ErrorIs(t, err, errStore, media)
	}
	_, ok := compressors[ocispec.MediaTypeImageLayer]
	assert.True(t, ok, "the uncompressed media type was not tested")
}

// stalling is a store with leases that stalls in one of its calls, ignoring the
// context, until goOn is closed.
type stalling struct {
	content.Store
	in      string
	reached chan struct{}
	goOn    chan struct{}
	left    atomic.Int32 // what was created and not removed
}

func (s *stalling) maybe(call string) {
	if call == s.in {
		close(s.reached)
		<-s.goOn
	}
}

// stallingLeases are the leases of a stalling store.
type stallingLeases struct {
	leases.Manager
	*stalling
}

func (s stallingLeases) Create(context.Context, ...leases.Opt) (leases.Lease, error) {
	s.maybe("create lease")
	s.left.Add(1)
	return leases.Lease{ID: "lease"}, nil
}

func (s stallingLeases) Delete(context.Context, leases.Lease, ...leases.DeleteOpt) error {
	s.maybe("delete lease")
	s.left.Add(-1)
	return nil
}

func (s *stalling) Writer(context.Context, ...content.WriterOpt) (content.Writer, error) {
	s.maybe("open")
	s.left.Add(1)
	return &stallingWriter{of: s}, nil
}

func (s *stalling) Abort(context.Context, string) error {
	s.maybe("abort")
	s.left.Add(-1)
	return nil
}

type stallingWriter struct {
	content.Writer
	of   *stalling
	busy atomic.Bool
}

func (w *stallingWriter) Write(b []byte) (int, error) {
	w.busy.Store(true)
	defer w.busy.Store(false)
	w.of.maybe("write")
	return len(b), nil
}

func (w *stallingWriter) Commit(context.Context, int64, digest.Digest, ...content.Opt) error {
	w.of.maybe("commit")
	return errStore
}

func (w *stallingWriter) Truncate(int64) error { return nil }

func (w *stallingWriter) Close() error {
	if w.busy.Load() {
		return errors.New("closed during a write")
	}
	return nil
}

// soonEnough bounds how long a cancelled operation continues. On an idle machine it
// takes at most a second; a defect would take forever.
const soonEnough = 10 * time.Second

// A cancelled comparison ends, whichever call the store has stalled in. When the store
// continues, the ingest is rolled back and no goroutine is left.
func TestCancelledComparisonDoesNotWaitForTheStore(t *testing.T) {
	before := goroutinesIn("diff.(*ingest)", "klauspost") // not in parallel: other tests have some too
	for media, c := range compressors {
		for _, in := range []string{"create lease", "open", "write", "commit", "abort", "delete lease"} {
			s := &stalling{in: in, reached: make(chan struct{}), goOn: make(chan struct{})}
			ctx, cancel := context.WithCancel(t.Context())
			service := &Service{contents: Contents{Store: s, Leases: stallingLeases{stalling: s}}}
			ended := make(chan error, 1)
			go func() {
				_, err := service.store(ctx, diff.Config{MediaType: media}, c, func(w io.Writer, _ *current) error {
					switch in {
					case "commit":
						return nil
					case "abort", "delete lease":
						return io.ErrNoProgress
					}
					noise := rand.NewChaCha8([32]byte{})
					for {
						if _, err := io.CopyN(w, noise, contentSize); err != nil {
							return err
						}
						if ctx.Err() != nil {
							return context.Cause(ctx)
						}
					}
				})
				ended <- err
			}()
			<-s.reached
			cancel()
			select {
			case err := <-ended:
				if in == "abort" || in == "delete lease" {
					require.ErrorIs(t, err, io.ErrNoProgress)
				} else {
					require.ErrorIs(t, err, context.Canceled, "%s: %s", media, in)
				}
			case <-time.After(soonEnough):
				t.Fatalf("%s: still waiting for: %s", media, in)
			}
			close(s.goOn)
			require.Eventually(t, func() bool { return s.left.Load() == 0 }, soonEnough, time.Millisecond, "%s: %s", media, in)
		}
	}
	require.Eventually(t, func() bool { return goroutinesIn("diff.(*ingest)", "klauspost") <= before }, soonEnough, 10*time.Millisecond)
}
