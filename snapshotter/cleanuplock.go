package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/containerd/errdefs"
)

// Why a cleanup ended before its work was done.
var (
	errStopped = fmt.Errorf("the cleanup was stopped; what is left is for the next one: %w", errdefs.ErrAborted)
	errYielded = fmt.Errorf("the cleanup made way for another: %w", errdefs.ErrUnavailable)
)

// turns lets one cleanup run at a time, and lets others end it.
type cleanupLock struct {
	once sync.Once
	sem  chan struct{} // a place for one

	mu      sync.Mutex
	waiting int
	cancel  context.CancelCauseFunc // of the one that runs; nil where nobody may end it
	yields  bool                    // it makes way for whoever comes
}

func (t *cleanupLock) semaphore() chan struct{} {
	t.once.Do(func() { t.sem = make(chan struct{}, 1) })
	return t.sem
}

// take waits for a turn. A cleanup that runs in the background makes way.
func (t *cleanupLock) acquire(ctx context.Context) (release func(), err error) {
	t.mu.Lock()
	t.waiting++
	t.mu.Unlock()
	defer func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.waiting--
	}()
	t.stop(errYielded, true)
	select {
	case t.semaphore() <- struct{}{}:
		return t.release, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// tryTake is take where nobody is at it.
func (t *cleanupLock) tryAcquire() (release func(), ok bool) {
	select {
	case t.semaphore() <- struct{}{}:
		return t.release, true
	default:
		return nil, false
	}
}

// isAwaited tells whether somebody waits for his turn.
func (t *cleanupLock) hasWaiters() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.waiting > 0
}

func (t *cleanupLock) release() {
	t.mu.Lock()
	if t.cancel != nil {
		t.cancel(nil) // or the context would stay with the one it came from
	}
	t.cancel, t.yields = nil, false
	t.mu.Unlock()
	<-t.sem
}

// endable answers a context that others may end. Whoever calls it has the turn.
func (t *cleanupLock) cancelable(ctx context.Context, yields bool) context.Context {
	ctx, cancel := context.WithCancelCause(ctx)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cancel, t.yields = cancel, yields
	if yields && t.waiting > 0 {
		cancel(errYielded)
	}
	return ctx
}

// stop ends the cleanup that runs, if there is one and, where only is set, if it
// is one that makes way. It does not wait for its end.
func (t *cleanupLock) stop(why error, only bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cancel == nil || only && !t.yields {
		return false
	}
	t.cancel(why)
	return true
}

// whyEnded returns, in place of the error of a context that others ended, why they did.
func endReason(ctx context.Context, err error) error {
	if why := context.Cause(ctx); err != nil && (errors.Is(why, errStopped) || errors.Is(why, errYielded)) {
		return why
	}
	return err
}
