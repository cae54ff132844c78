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

// turnTime is how long a second attempt waits for the one before it.
const retryWait = 30 * time.Second

// turns are those of second attempts: one has its turn at a time.
type retryLimiter struct {
	taken      chan struct{} // room for one
	generation atomic.Int64  // how often one has begun beside another, or ended
}

// wait waits for a turn, and answers what ends it. A turn that takes too long is
// waited for no more: one of those that wait has his beside it. The others go on
// waiting, or all would be in each other's way.
func (t *retryLimiter) wait(ctx context.Context) (end func(), err error) {
	for {
		generation := t.generation.Load()
		select {
		case t.taken <- struct{}{}:
			return func() { t.generation.Add(1); <-t.taken }, nil
		case <-time.After(retryWait):
			if t.generation.CompareAndSwap(generation, generation+1) {
				return func() { t.generation.Add(1) }, nil
			}
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// again is the second and last attempt for a layer that did not fit. What was
// unpacked of it is thrown away, room is made, and it is unpacked into a fresh
// clone. If it still does not fit nothing stays of it.
//
// A runtime that no layer is unpacked into, such as a container's, is left as it
// is: its quota is nobody's else, and what is in it may be the only copy.
//
// Layers that fail at once share the room that is made. Then they are unpacked one
// after the other: of two that fit one at a time neither is to fail for the other.
// But none waits for long for another: that may be read from a store that is slow, or
// answers no more.
func (s *Service) retry(ctx context.Context, desc ocispec.Descriptor, runtime string, config diff.ApplyConfig, first error) (ocispec.Descriptor, error) {
	if err := s.checkReadable(ctx, desc); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("%w (and it is not tried again: the layer cannot be read a second time: %s)", first, err.Error())
	}
	fresh, made, err := s.runtimes.Renew(ctx, runtime, first)
	if errdefs.IsFailedPrecondition(err) || errdefs.IsNotFound(err) {
		return ocispec.Descriptor{}, first
	}
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("%w (and it could not be tried again: %s)", first, err.Error())
	}
	end, err := s.second.wait(ctx)
	if err != nil {
		return ocispec.Descriptor{}, errors.Join(first, err)
	}
	defer end()
	log.G(ctx).WithError(first).WithField("digest", desc.Digest).WithField("dataset", fresh).
		Warnf("a layer did not fit: %s, and it is unpacked once more", made)
	applied, err := s.apply(ctx, desc, fresh, config)
	if err == nil {
		return applied, nil
	}
	if full(err) {
		err = fmt.Errorf("%w (tried twice: %s)", err, made)
	}
	if discardErr := s.runtimes.Discard(context.WithoutCancel(ctx), fresh); discardErr != nil {
		log.G(ctx).WithError(discardErr).WithField("dataset", fresh).Warn("what was unpacked of a layer that does not fit stays until it is removed")
	}
	return ocispec.Descriptor{}, err
}

// rereadable finds out whether a layer is still there, before others pay for the
// room that it needs.
func (s *Service) checkReadable(ctx context.Context, desc ocispec.Descriptor) error {
	ctx, cancel := context.WithTimeout(ctx, retryWait)
	defer cancel()
	in, err := s.contents.Store.ReaderAt(ctx, desc)
	if err != nil {
		return err
	}
	defer in.Close() // only read
	if _, err := in.ReadAt(make([]byte, 1), 0); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}
