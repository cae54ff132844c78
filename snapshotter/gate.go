package snapshotter

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/zfstpl/zfstpl/snapshotter/internal/reaper"
)

// gate admits operations, and waits in Close until they have ended.
type gate struct {
	writes  limiter // operations that write, except Remove, which never blocks
	queries limiter // operations that only query the pool
	closing sync.RWMutex
	closed  atomic.Bool
}

func newGate() *gate {
	return &gate{writes: make(limiter, maxConcurrent), queries: make(limiter, maxConcurrent)}
}

// checkOpen returns an error if the gate is closed.
func (g *gate) checkOpen() error {
	if g.closed.Load() {
		return reaper.ErrClosed
	}
	return nil
}

// maxConcurrent limits the running operations of a limiter. While the pool is suspended,
// each of them keeps a thread in the kernel, even if its caller gave up and retries. Go
// ends a process with ten thousand threads.
const maxConcurrent = 256

// limiter limits the number of operations that run at a time to its capacity. The nil limiter
// has no limit.
type limiter chan struct{}

// enter waits for a slot. The caller calls leave to free it.
func (l limiter) enter(ctx context.Context) (leave func(), err error) {
	if l == nil {
		return func() {}, nil
	}
	select {
	case l <- struct{}{}:
		return func() { <-l }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("%d operations are running and none ends; check with 'zpool status' whether the pool is suspended: %w", maxConcurrent, ctx.Err())
	}
}

// detach runs an operation that writes, in a goroutine of its own. If ctx ends first,
// detach returns its error at once and the operation continues. So fn must check ctx
// before its first change, and not after.
func detach[T any](ctx context.Context, g *gate, fn func(context.Context) (T, error)) (T, error) {
	return detachIn(ctx, g, g.writes, fn)
}

// detachIn is detach with another limiter.
func detachIn[T any](ctx context.Context, g *gate, l limiter, fn func(context.Context) (T, error)) (T, error) {
	type outcome struct {
		value T
		err   error
	}
	var none T
	if err := ctx.Err(); err != nil {
		return none, err
	}
	if err := g.checkOpen(); err != nil { // a running Close does not block callers
		return none, err
	}
	leave, err := l.enter(ctx)
	if err != nil {
		return none, err
	}
	done := make(chan outcome, 1)
	go func() {
		defer leave()
		g.closing.RLock()
		defer g.closing.RUnlock()
		if err := g.checkOpen(); err != nil {
			done <- outcome{err: err}
			return
		}
		value, err := fn(ctx)
		done <- outcome{value, err}
	}()
	select {
	case o := <-done:
		return o.value, o.err
	case <-ctx.Done():
		return none, ctx.Err()
	}
}

// detachErr is detach for an operation without a result.
func detachErr(ctx context.Context, g *gate, fn func(context.Context) error) error {
	_, err := detach(ctx, g, func(ctx context.Context) (struct{}, error) { return struct{}{}, fn(ctx) })
	return err
}
