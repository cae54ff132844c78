package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/log"

	"github.com/zfstpl/zfstpl/snapshotter/space"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// freeWait bounds how long it is waited for what was destroyed to come back.
const freeTimeout = 30 * time.Second

// Room is what making room came to.
type Reclaimed struct {
	Templates int    // warm ones that were evicted
	Bytes     uint64 // of these
	// Full is what is nearest to its end after that, and how near.
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

// roomMaker lets all that run out of room while room is being made share it.
type reclaimer struct {
	mu      sync.Mutex
	current *reclaim
	closed  bool
	all     sync.WaitGroup // of those that are under way; one that ends may have another beside it
}

// making is room that is being made.
type reclaim struct {
	end     context.CancelCauseFunc
	callers int           // that wait for it; guarded by roomMaker.mu
	done    chan struct{} // is closed behind the last change of what follows
	room    Reclaimed
	err     error
}

// errNoCaller ends what makes room for callers that are all gone.
var errNoCaller = fmt.Errorf("no caller waits for room any more: %w", context.Canceled)

// makeRoom destroys all trash and all cached templates that can go and waits, for
// some time, until their space can be written again. Callers that come while it is
// being done share it. It goes on until the last of them is gone, and ends within a
// batch then, or when the snapshotter is closed. cause is why it is wanted.
func (s *Snapshotter) reclaimSpace(ctx context.Context, cause error) (Reclaimed, error) {
	m, err := s.reclaimer.join(ctx, func(ctx context.Context) (Reclaimed, error) { return s.reclaimAll(ctx, cause) })
	if err != nil {
		return Reclaimed{}, err
	}
	select {
	case <-m.done:
		return m.room, m.err
	case <-ctx.Done():
		s.reclaimer.leave(m)
		return Reclaimed{}, ctx.Err()
	}
}

// join returns what is under way, or begins.
func (r *reclaimer) join(ctx context.Context, do func(context.Context) (Reclaimed, error)) (*reclaim, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, errClosed
	}
	if r.current == nil {
		r.begin(context.WithoutCancel(ctx), do)
	}
	r.current.callers++
	return r.current, nil
}

// begin wants the mutex held.
func (r *reclaimer) begin(ctx context.Context, do func(context.Context) (Reclaimed, error)) {
	ctx, end := context.WithCancelCause(ctx)
	m := &reclaim{end: end, done: make(chan struct{})}
	r.current = m
	r.all.Go(func() {
		defer end(nil)
		m.room, m.err = do(ctx)
		if why := context.Cause(ctx); why != nil {
			m.err = why
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.current == m {
			r.current = nil
		}
		close(m.done)
	})
}

// leave is for a caller that waits no more. Who comes after the last one has left
// begins anew.
func (r *reclaimer) leave(m *reclaim) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if m.callers--; m.callers > 0 {
		return
	}
	m.end(errNoCaller)
	if r.current == m {
		r.current = nil
	}
}

// stop ends what is under way, waits for that and lets nothing more begin.
func (r *reclaimer) stop() {
	r.mu.Lock()
	r.closed = true
	if r.current != nil {
		r.current.end(errClosed)
	}
	r.mu.Unlock()
	r.all.Wait()
}

func (s *Snapshotter) reclaimAll(ctx context.Context, cause error) (Reclaimed, error) {
	before, err := Limits(ctx, s.pool, s.config.Base)
	if err != nil {
		return Reclaimed{}, err
	}
	policy := s.config.policy()
	// Where nothing comes back of what is destroyed, what is warm would go for nothing.
	policy.All = space.Tightest(limitsFor(before, cause)).Blocked == ""
	release, err := s.cleanup.acquire(ctx)
	if err != nil {
		return Reclaimed{}, err
	}
	gone, err := s.cleanWithPolicy(withUrgent(ctx), policy)
	release()
	room := Reclaimed{Templates: gone.templates, Bytes: gone.bytes}
	if err != nil && !outOfSpace(err) { // else it is not back yet, and the queue writes the rest
		return room, err
	}
	waiting, cancel := context.WithTimeout(ctx, freeTimeout)
	defer cancel()
	if err := s.pool.WaitFreed(waiting); err != nil && ctx.Err() == nil {
		log.G(ctx).WithError(err).Warn("what was destroyed has not all come back yet")
	}
	limits, err := Limits(ctx, s.pool, s.config.Base)
	if err != nil {
		return room, err
	}
	full := space.Fullest(limits)
	room.Full = full.String()
	if full.Blocked != "" {
		room.Full += "; " + full.Blocked
	}
	return room, nil
}

// thoseOf are the limits that may have been meant by what ZFS answered. A quota that
// is written beyond is EDQUOT. ENOSPC is a pool that is full or, to promote, a quota on
// where the template goes: never one that nothing warm is under.
func limitsFor(limits []space.Limit, cause error) []space.Limit {
	quota := errors.Is(cause, zfs.ErrQuota) || errors.Is(cause, syscall.EDQUOT)
	return slices.DeleteFunc(slices.Clone(limits), func(l space.Limit) bool {
		return quota && l.Pool || !quota && !l.Pool && l.Blocked != ""
	})
}

// outOfRoom tells whether ZFS refused something for want of space.
func outOfSpace(err error) bool {
	return errors.Is(err, zfs.ErrNoSpace) || errors.Is(err, zfs.ErrQuota)
}

// withRoom does what takes space. Where there is none room is made, and it is
// tried once more; not where a first part may be left, which the caller takes back.
func (s *Snapshotter) withReclaim(ctx context.Context, do func() error) error {
	err := do()
	if !outOfSpace(err) || ambiguous(err) {
		return err
	}
	log.G(ctx).WithError(err).Warn("there is no room: cached templates are evicted, and it is tried once more")
	room, roomErr := s.reclaimSpace(ctx, err)
	if roomErr != nil {
		return fmt.Errorf("%w (and room could not be made: %s)", err, roomErr.Error())
	}
	if err = do(); outOfSpace(err) {
		return fmt.Errorf("%w (tried twice: %s)", err, room)
	}
	return err
}

// applier carries ops out.
type applier func(ctx context.Context, ops ...zfs.Op) error

// apply is the pool's Apply, with room made where there is none.
func (s *Snapshotter) apply(ctx context.Context, ops ...zfs.Op) error {
	return s.withReclaim(ctx, func() error { return s.pool.Apply(ctx, ops...) })
}

// catchUp is the queue's, with room made where there is none.
func (s *Snapshotter) catchUp(ctx context.Context) error {
	return s.withReclaim(ctx, func() error { return s.queue.catchUp(ctx) })
}
