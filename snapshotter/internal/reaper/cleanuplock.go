package reaper

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/containerd/errdefs"
)

// The reasons why a cleanup ends early.
var (
	errStopped = fmt.Errorf("the cleanup was stopped; the next cleanup destroys the rest: %w", errdefs.ErrAborted)
	errYielded = fmt.Errorf("the cleanup yielded to another: %w", errdefs.ErrUnavailable)
)

// cleanupLock is a mutex for cleanups. Its holder can be cancelled.
type cleanupLock struct {
	once sync.Once
	sem  chan struct{} // of capacity 1; use semaphore()

	mu      sync.Mutex
	waiting int
	closed  bool
	cancel  context.CancelCauseFunc // of the holder; nil if it cannot be cancelled
	yields  bool                    // whether the holder yields to waiters
}

func (l *cleanupLock) semaphore() chan struct{} {
	l.once.Do(func() { l.sem = make(chan struct{}, 1) })
	return l.sem
}

// acquire acquires the lock. It cancels a holder that yields.
func (l *cleanupLock) acquire(ctx context.Context) (release func(), err error) {
	l.mu.Lock()
	l.waiting++
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.waiting--
	}()
	l.stop(errYielded, true)
	select {
	case l.semaphore() <- struct{}{}:
		return l.release, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// tryAcquire acquires the lock if it is free, and reports whether it did.
func (l *cleanupLock) tryAcquire() (release func(), ok bool) {
	select {
	case l.semaphore() <- struct{}{}:
		return l.release, true
	default:
		return nil, false
	}
}

// HasWaiters reports whether an acquire is waiting.
func (l *cleanupLock) HasWaiters() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.waiting > 0
}

func (l *cleanupLock) release() {
	l.mu.Lock()
	if l.cancel != nil {
		l.cancel(nil) // releases the context's resources
	}
	l.cancel, l.yields = nil, false
	l.mu.Unlock()
	<-l.sem
}

// cancelable returns a context that stop cancels and, if yields is set, acquire too. The
// caller holds the lock.
func (l *cleanupLock) cancelable(ctx context.Context, yields bool) context.Context {
	ctx, cancel := context.WithCancelCause(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cancel, l.yields = cancel, yields
	if yields && l.waiting > 0 {
		cancel(errYielded)
	}
	return ctx
}

// stop cancels the holder with cause, and reports whether it did. If onlyYielding is set,
// it cancels only a holder that yields. It does not wait until the holder has released
// the lock.
func (l *cleanupLock) stop(cause error, onlyYielding bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cancel == nil || onlyYielding && !l.yields {
		return false
	}
	l.cancel(cause)
	return true
}

// close stops the holder. checkOpen then returns an error.
func (l *cleanupLock) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.stop(errStopped, false)
}

// checkOpen returns an error after close.
func (l *cleanupLock) checkOpen() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return ErrClosed
	}
	return nil
}

// endReason returns errStopped or errYielded in place of err if that is the cause of ctx.
func endReason(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); err != nil && (errors.Is(cause, errStopped) || errors.Is(cause, errYielded)) {
		return cause
	}
	return err
}
