package reaper

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/log"

	"github.com/zfstpl/zfstpl/snapshotter/errkind"
	"github.com/zfstpl/zfstpl/snapshotter/inspect"
	"github.com/zfstpl/zfstpl/snapshotter/space"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// freeTimeout bounds how long a reclaim waits until ZFS has freed destroyed datasets.
const freeTimeout = 30 * time.Second

// Reclaimed is the result of a reclaim.
type Reclaimed struct {
	Templates int    // evicted cached templates
	Bytes     uint64 // that they freed
	// Full describes the fullest limit after the reclaim.
	Full string
}

func (r Reclaimed) String() string {
	what := "no cached template could be evicted"
	switch r.Templates {
	case 0:
	case 1:
		what = fmt.Sprintf("one cached template of %s was evicted", space.Size(r.Bytes))
	default:
		what = fmt.Sprintf("%d cached templates of %s were evicted", r.Templates, space.Size(r.Bytes))
	}
	if r.Full != "" {
		what += ", and " + r.Full
	}
	return what
}

// reclaimer runs one reclaim at a time. Callers that run out of space meanwhile share it.
type reclaimer struct {
	mu      sync.Mutex
	current *reclaim
	closed  bool
	all     sync.WaitGroup // of all reclaims: the next one may begin before a cancelled one has ended
}

// reclaim is a running reclaim.
type reclaim struct {
	cancel  context.CancelCauseFunc
	callers int           // that wait for it; guarded by reclaimer.mu
	done    chan struct{} // closed when result and err are set
	result  Reclaimed
	err     error
}

// errNoCaller cancels a reclaim for which no caller waits.
var errNoCaller = fmt.Errorf("no caller waits for the reclaim any more: %w", context.Canceled)

// Reclaim destroys all garbage and all cached templates that can be destroyed, and
// waits at most freeTimeout until ZFS has freed them. cause is the error of the operation
// that ran out of space. Callers share a running reclaim. It ends after the current batch
// when its last caller gave up, or when the snapshotter is closed.
func (r *Reaper) Reclaim(ctx context.Context, cause error) (Reclaimed, error) {
	c, err := r.reclaimer.join(ctx, func(ctx context.Context) (Reclaimed, error) { return r.reclaimAll(ctx, cause) })
	if err != nil {
		return Reclaimed{}, err
	}
	select {
	case <-c.done:
		return c.result, c.err
	case <-ctx.Done():
		r.reclaimer.leave(c)
		return Reclaimed{}, ctx.Err()
	}
}

// join joins the running reclaim, or starts one that runs do.
func (r *reclaimer) join(ctx context.Context, do func(context.Context) (Reclaimed, error)) (*reclaim, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, ErrClosed
	}
	if r.current == nil {
		r.begin(context.WithoutCancel(ctx), do)
	}
	r.current.callers++
	return r.current, nil
}

// begin starts a reclaim. The caller holds r.mu.
func (r *reclaimer) begin(ctx context.Context, do func(context.Context) (Reclaimed, error)) {
	ctx, cancel := context.WithCancelCause(ctx)
	c := &reclaim{cancel: cancel, done: make(chan struct{})}
	r.current = c
	r.all.Go(func() {
		defer cancel(nil)
		c.result, c.err = do(ctx)
		if cause := context.Cause(ctx); cause != nil {
			c.err = cause
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.current == c {
			r.current = nil
		}
		close(c.done)
	})
}

// leave removes a caller that has given up. It cancels the reclaim if that was the last
// caller; the next caller then starts another reclaim.
func (r *reclaimer) leave(c *reclaim) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c.callers--; c.callers > 0 {
		return
	}
	c.cancel(errNoCaller)
	if r.current == c {
		r.current = nil
	}
}

// stop cancels the running reclaim, waits until all have ended and rejects later ones.
func (r *reclaimer) stop() {
	r.mu.Lock()
	r.closed = true
	if r.current != nil {
		r.current.cancel(ErrClosed)
	}
	r.mu.Unlock()
	r.all.Wait()
}

// reclaimAll runs a reclaim for an operation that failed with cause.
func (r *Reaper) reclaimAll(ctx context.Context, cause error) (Reclaimed, error) {
	before, err := inspect.Limits(ctx, r.pool, r.config.Base)
	if err != nil {
		return Reclaimed{}, err
	}
	policy := r.config.policy()
	// Evicting templates is useless if it frees nothing.
	policy.All = space.Tightest(limitsFor(before, cause)).Blocked == ""
	release, err := r.cleanup.acquire(ctx)
	if err != nil {
		return Reclaimed{}, err
	}
	gone, err := r.cleanWithPolicy(ctx, Options{urgent: true, ignoreBackoff: true}, policy)
	release()
	result := Reclaimed{Templates: gone.templates, Bytes: gone.bytes}
	if err != nil && !errkind.IsOutOfSpace(err) { // out of space: not freed yet, and the journal writes the removals later
		return result, err
	}
	waiting, cancel := context.WithTimeout(ctx, freeTimeout)
	defer cancel()
	if err := r.pool.WaitFreed(waiting); err != nil && ctx.Err() == nil {
		log.G(ctx).WithError(err).Warn("destroyed datasets are not freed yet")
	}
	limits, err := inspect.Limits(ctx, r.pool, r.config.Base)
	if err != nil {
		return result, err
	}
	full := space.Fullest(limits)
	result.Full = full.String()
	if full.Blocked != "" {
		result.Full += "; " + full.Blocked
	}
	return result, nil
}

// limitsFor returns the limits that cause may be about. A write beyond a quota fails with
// EDQUOT. ENOSPC means that the pool is full or, for a promote, that a quota above the
// template is reached: never a quota that bounds no cached template.
func limitsFor(limits []space.Limit, cause error) []space.Limit {
	quota := errors.Is(cause, zfs.ErrQuota) || errors.Is(cause, syscall.EDQUOT)
	return slices.DeleteFunc(slices.Clone(limits), func(l space.Limit) bool {
		return quota && l.Pool || !quota && !l.Pool && l.Blocked != ""
	})
}

// WithReclaim runs do. If do runs out of space, WithReclaim reclaims space and runs do once
// more. If the error of do is ambiguous (see errkind.IsAmbiguous), do may have left a part of
// its work. WithReclaim then returns that error at once, and the caller rolls back.
func (r *Reaper) WithReclaim(ctx context.Context, do func() error) error {
	err := do()
	if !errkind.IsOutOfSpace(err) || errkind.IsAmbiguous(err) {
		return err
	}
	log.G(ctx).WithError(err).Warn("out of space, reclaiming space and retrying")
	reclaimed, reclaimErr := r.Reclaim(ctx, err)
	if reclaimErr != nil {
		return fmt.Errorf("%w (failed to reclaim space: %s)", err, reclaimErr.Error())
	}
	if err = do(); errkind.IsOutOfSpace(err) {
		return fmt.Errorf("%w (tried twice: %s)", err, reclaimed)
	}
	return err
}
