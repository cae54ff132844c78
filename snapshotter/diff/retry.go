package diff

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// retryWait is how long a second attempt waits for the one before it.
const retryWait = 30 * time.Second

// retryLimiter runs second attempts one at a time.
type retryLimiter struct {
	slot       chan struct{} // of capacity 1
	generation atomic.Int64  // how many attempts have ended, or begun without the slot
}

// acquire waits for the slot and returns the function that releases it. If the attempt
// that has the slot takes longer than retryWait, one of the waiting attempts proceeds
// without the slot. The others keep waiting, so that they do not compete for the same
// space.
func (l *retryLimiter) acquire(ctx context.Context) (release func(), err error) {
	for {
		generation := l.generation.Load()
		select {
		case l.slot <- struct{}{}:
			return func() { l.generation.Add(1); <-l.slot }, nil
		case <-time.After(retryWait):
			if l.generation.CompareAndSwap(generation, generation+1) {
				return func() { l.generation.Add(1) }, nil
			}
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// retry is the second and last attempt for a layer that did not fit. It destroys what
// the first attempt unpacked, reclaims space, and unpacks the layer into a new clone.
// If the layer still does not fit, retry removes the clone.
//
// A runtime that is not an extraction, such as a container's, is not retried: its
// quota concerns only the container, and its content may be the only copy.
//
// Layers that fail at the same time share the reclaimed space. They are unpacked one
// after the other, so that two layers that fit one at a time do not fail because of
// each other. An attempt waits for the previous one at most for retryWait, because
// that one may read from a store that is slow or has stalled.
func (s *Service) retry(ctx context.Context, desc ocispec.Descriptor, runtime string, config diff.ApplyConfig, first error) (ocispec.Descriptor, error) {
	if err := s.checkReadable(ctx, desc); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("%w (no second attempt: the layer cannot be read again: %s)", first, err.Error())
	}
	fresh, made, err := s.extractions.Renew(ctx, runtime, first)
	if errdefs.IsFailedPrecondition(err) || errdefs.IsNotFound(err) {
		return ocispec.Descriptor{}, first
	}
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("%w (the second attempt failed to begin: %s)", first, err.Error())
	}
	release, err := s.retries.acquire(ctx)
	if err != nil {
		return ocispec.Descriptor{}, errors.Join(first, err)
	}
	defer release()
	log.G(ctx).WithError(first).WithField("digest", desc.Digest).WithField("dataset", fresh).
		WithField("reclaimed", made).Warn("layer did not fit; unpacking it again")
	applied, err := s.apply(ctx, desc, fresh, config)
	if err == nil {
		return applied, nil
	}
	if full(err) {
		err = fmt.Errorf("%w (tried twice: %s)", err, made)
	}
	if discardErr := s.extractions.Discard(context.WithoutCancel(ctx), fresh); discardErr != nil {
		log.G(ctx).WithError(discardErr).WithField("dataset", fresh).Warn("failed to remove the extraction of a layer that does not fit")
	}
	return ocispec.Descriptor{}, err
}

// checkReadable returns an error if a layer cannot be read from the store. It runs
// before anything is evicted for the layer.
func (s *Service) checkReadable(ctx context.Context, desc ocispec.Descriptor) error {
	ctx, cancel := context.WithTimeout(ctx, retryWait)
	defer cancel()
	in, err := s.contents.Store.ReaderAt(ctx, desc)
	if err != nil {
		return err
	}
	defer in.Close() // opened for reading only
	if _, err := in.ReadAt(make([]byte, 1), 0); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}
