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
const freeWait = 30 * time.Second

// Room is what making room came to.
type Room struct {
	Templates int    // warm ones that were evicted
	Bytes     uint64 // of these
	// Full is what is nearest to its end after that, and how near.
	Full string
}

func (r Room) String() string {
	what := "no warm template could be evicted"
	switch r.Templates {
	case 0:
	case 1:
		what = fmt.Sprintf("one warm template of %s was evicted", space.Size(r.Bytes))
	default:
		what = fmt.Sprintf("%d warm templates of %s were evicted", r.Templates, space.Size(r.Bytes))
	}
	if r.Full != "" {
		what += ", and " + r.Full
	}
	return what
}

// roomMaker lets whoever runs out of room while room is being made share it.
type roomMaker struct {
	mu    sync.Mutex
	under *making
}

type making struct {
	done chan struct{}
	room Room
	err  error
}

// makeRoom destroys all trash and all warm templates that can go and waits, for
// some time, until their space can be written again. Callers that come while it is
// being done share it. cause is why it is wanted.
func (s *Snapshotter) makeRoom(ctx context.Context, cause error) (Room, error) {
	s.room.mu.Lock()
	if m := s.room.under; m != nil {
		s.room.mu.Unlock()
		select {
		case <-m.done:
			return m.room, m.err
		case <-ctx.Done():
			return Room{}, ctx.Err()
		}
	}
	m := &making{done: make(chan struct{})}
	s.room.under = m
	s.room.mu.Unlock()
	m.room, m.err = s.evictAll(context.WithoutCancel(ctx), cause) // others may wait for it
	s.room.mu.Lock()
	s.room.under = nil
	s.room.mu.Unlock()
	close(m.done)
	return m.room, m.err
}

func (s *Snapshotter) evictAll(ctx context.Context, cause error) (Room, error) {
	before, err := Limits(ctx, s.pool, s.config.Base)
	if err != nil {
		return Room{}, err
	}
	policy := s.config.policy()
	// Where nothing comes back of what is destroyed, what is warm would go for nothing.
	policy.All = space.Tightest(thoseOf(before, cause)).Stuck == ""
	leave, err := s.cleanup.take(ctx)
	if err != nil {
		return Room{}, err
	}
	gone, err := s.cleanBy(withUrgent(ctx), policy)
	leave()
	room := Room{Templates: gone.templates, Bytes: gone.bytes}
	if err != nil && !outOfRoom(err) { // else it is not back yet, and the queue writes the rest
		return room, err
	}
	waiting, cancel := context.WithTimeout(ctx, freeWait)
	defer cancel()
	if err := s.pool.WaitFreed(waiting); err != nil {
		log.G(ctx).WithError(err).Warn("what was destroyed has not all come back yet")
	}
	limits, err := Limits(ctx, s.pool, s.config.Base)
	if err != nil {
		return room, err
	}
	full := space.Fullest(limits)
	room.Full = full.String()
	if full.Stuck != "" {
		room.Full += "; " + full.Stuck
	}
	return room, nil
}

// thoseOf are the limits that may have been meant by what ZFS answered. A quota that
// is written beyond is EDQUOT. ENOSPC is a pool that is full or, to promote, a quota on
// where the template goes: never one that nothing warm is under.
func thoseOf(limits []space.Limit, cause error) []space.Limit {
	quota := errors.Is(cause, zfs.ErrQuota) || errors.Is(cause, syscall.EDQUOT)
	return slices.DeleteFunc(slices.Clone(limits), func(l space.Limit) bool {
		return quota && l.Pool || !quota && !l.Pool && l.Stuck != ""
	})
}

// outOfRoom tells whether ZFS refused something for want of space.
func outOfRoom(err error) bool { return errors.Is(err, zfs.ErrNoSpace) || errors.Is(err, zfs.ErrQuota) }

// withRoom does what takes space. Where there is none room is made, and it is
// tried once more; not where a first part may be left, which the caller takes back.
func (s *Snapshotter) withRoom(ctx context.Context, do func() error) error {
	err := do()
	if !outOfRoom(err) || ambiguous(err) {
		return err
	}
	log.G(ctx).WithError(err).Warn("there is no room: warm templates are evicted, and it is tried once more")
	room, roomErr := s.makeRoom(ctx, err)
	if roomErr != nil {
		return fmt.Errorf("%w (and room could not be made: %s)", err, roomErr.Error())
	}
	if err = do(); outOfRoom(err) {
		return fmt.Errorf("%w (tried twice: %s)", err, room)
	}
	return err
}

// applier carries ops out.
type applier func(ctx context.Context, ops ...zfs.Op) error

// apply is the pool's Apply, with room made where there is none.
func (s *Snapshotter) apply(ctx context.Context, ops ...zfs.Op) error {
	return s.withRoom(ctx, func() error { return s.pool.Apply(ctx, ops...) })
}

// catchUp is the queue's, with room made where there is none.
func (s *Snapshotter) catchUp(ctx context.Context) error {
	return s.withRoom(ctx, func() error { return s.queue.catchUp(ctx) })
}
