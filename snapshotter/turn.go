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
type turns struct {
	once sync.Once
	turn chan struct{} // a place for one

	mu      sync.Mutex
	waiting int
	end     context.CancelCauseFunc // of the one that runs; nil where nobody may end it
	yields  bool                    // it makes way for whoever comes
}

func (t *turns) place() chan struct{} {
	t.once.Do(func() { t.turn = make(chan struct{}, 1) })
	return t.turn
}

// take waits for a turn. A cleanup that runs in the background makes way.
func (t *turns) take(ctx context.Context) (leave func(), err error) {
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
	case t.place() <- struct{}{}:
		return t.leave, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// tryTake is take where nobody is at it.
func (t *turns) tryTake() (leave func(), ok bool) {
	select {
	case t.place() <- struct{}{}:
		return t.leave, true
	default:
		return nil, false
	}
}

// isAwaited tells whether somebody waits for his turn.
func (t *turns) isAwaited() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.waiting > 0
}

func (t *turns) leave() {
	t.mu.Lock()
	if t.end != nil {
		t.end(nil) // or the context would stay with the one it came from
	}
	t.end, t.yields = nil, false
	t.mu.Unlock()
	<-t.turn
}

// endable answers a context that others may end. Whoever calls it has the turn.
func (t *turns) endable(ctx context.Context, yields bool) context.Context {
	ctx, end := context.WithCancelCause(ctx)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.end, t.yields = end, yields
	if yields && t.waiting > 0 {
		end(errYielded)
	}
	return ctx
}

// stop ends the cleanup that runs, if there is one and, where only is set, if it
// is one that makes way. It does not wait for its end.
func (t *turns) stop(why error, only bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.end == nil || only && !t.yields {
		return false
	}
	t.end(why)
	return true
}

// whyEnded returns, in place of the error of a context that others ended, why they did.
func whyEnded(ctx context.Context, err error) error {
	if why := context.Cause(ctx); err != nil && (errors.Is(why, errStopped) || errors.Is(why, errYielded)) {
		return why
	}
	return err
}
