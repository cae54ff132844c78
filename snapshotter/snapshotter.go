package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"github.com/zfstpl/zfstpl/snapshotter/holders"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/space"
)

// KeepForever as Config.WarmKeep never evicts a template for its age.
const KeepForever = space.Forever

// Config is what a snapshotter is made with.
type Config struct {
	Base layout.Base
	// WarmKeep is how long a template stays that no record names any more. Zero
	// keeps none: the next Cleanup destroys it.
	CacheKeep time.Duration
	// WarmMaxBytes is what those templates may have together, in bytes; zero for
	// no bound.
	CacheMaxBytes uint64
	// Pressure is how full, in percent, the pool may be, or a quota that the base
	// is under, before such templates go, the least recently used first; zero for
	// never.
	Pressure int
	// OwnTemplates gives every containerd namespace templates of its own: none
	// is found by, or joined with, another namespace's layer.
	OwnTemplates bool
	// ReuseLayers says what becomes of a layer that is asked for and is in the pool, and
	// ReuseLayersIn of one that a containerd namespace asks for. Empty means ReuseAuto.
	ReuseLayers   ReuseMode
	ReuseLayersIn map[string]ReuseMode
	// Foreign says what becomes of snapshots that somebody else took of a
	// dataset nobody needs. Empty means KeepForeign.
	Foreign ForeignPolicy
	// Cleanup says when what nobody needs is destroyed. Empty means CleanupGC.
	Cleanup CleanupMode
	// CleanupDir is the directory for the list of what may go that Close keeps, so that
	// a cleanup can go on from there. Nil: none is kept.
	CleanupDir *os.Root
	// Quota bounds what a container can add to its image, in bytes; zero does
	// not. The label containerd.io/snapshot/max-size goes before it.
	Quota uint64

	// MountDir is the directory of held mounts, on tmpfs and root's alone. Empty:
	// nothing is held, and clients mount datasets, whatever Mounts says.
	MountDir string
	// Mounts says how clients mount active snapshots. Empty means MountAuto.
	Mounts MountForm

	// holders finds who has datasets mounted; tests have their own.
	holders func(datasets ...string) map[string][]holders.Mount
	// users finds who uses a file system by its device; tests have their own.
	users func(device uint64) []holders.User
	// held replaces the mounts in MountDir; tests have their own.
	held heldMounts
}

// Snapshotter implements containerd's snapshots.Snapshotter and
// snapshots.Cleaner.
type Snapshotter struct {
	config            Config
	pool              Pool
	index             *index
	empty             *template
	keys              keyLocks // by snapshot name
	data              keyLocks // by dataset; taken behind keys
	journal           journal
	cleanupMark       Mark // what the base says is owed; see mark
	cleanupMarkUnsure bool // whether it does is not known
	verify            bool // look at each dataset again before it is destroyed; see Resume

	mounts viewMounts // of templates that have views
	held   heldMounts // of runtimes; nil where none are held

	cleanup    cleanupLock // one cleanup at a time
	background background
	activity   activity
	eviction   evictionState
	reclaimer  reclaimer

	changes limiter // operations that change something, save Remove, which waits for nothing
	queries limiter // operations that ask the pool

	closing sync.RWMutex // held for reading while an operation runs
	closed  atomic.Bool
}

var (
	_ snapshots.Snapshotter = (*Snapshotter)(nil)
	_ snapshots.Cleaner     = (*Snapshotter)(nil)
)

// New lists the pool, finishes what a crash left and answers a snapshotter.
// The base must exist (see InitBase) and be used by no other snapshotter: the
// caller holds its lock.
func New(ctx context.Context, pool Pool, config Config) (*Snapshotter, error) {
	if err := config.check(); err != nil {
		return nil, err
	}
	s := newSnapshotter(pool, config)
	if err := s.openHeld(); err != nil {
		return nil, err
	}
	if err := s.recover(ctx); err != nil {
		return nil, err
	}
	s.releaseGarbage(ctx)
	s.mountViews(ctx)
	s.journal.start(s)
	s.background.start(context.WithoutCancel(ctx), s)
	return s, nil
}

func newSnapshotter(pool Pool, config Config) *Snapshotter {
	if config.holders == nil {
		config.holders = func(datasets ...string) map[string][]holders.Mount { return holders.Find(holders.Proc, datasets...) }
	}
	if config.users == nil {
		config.users = func(device uint64) []holders.User { return holders.FindOpen(holders.Proc, device) }
	}
	s := &Snapshotter{config: config, pool: pool, index: newIndex(), held: config.held, changes: newLimiter(), queries: newLimiter()}
	s.mounts.open = make(map[string]io.Closer)
	s.journal.wake = make(chan struct{}, 1)
	s.index.onGarbage = s.journal.notify
	s.background.wake = make(chan struct{}, 1)
	return s
}

// Close writes removals that are still in memory to the pool, and the list of what
// may go, and waits for what is under way; it ends cleanups and evictions, also those
// that make room for a caller. Every later call but Close fails.
func (s *Snapshotter) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	s.background.stop()
	s.cleanup.stop(errStopped, false)
	s.reclaimer.stop()
	s.closing.Lock()
	defer s.closing.Unlock()
	err := s.journal.stop()
	s.releaseGarbage(context.Background())
	if err == nil {
		err = s.saveCleanupList(context.Background())
	}
	return errors.Join(err, s.mounts.releaseAll())
}

func (c Config) check() error {
	if c.Quota > maxQuota {
		return fmt.Errorf("quota %d is more than %d bytes: %w", c.Quota, uint64(maxQuota), errdefs.ErrInvalidArgument)
	}
	if c.Pressure < 0 || c.Pressure > 100 {
		return fmt.Errorf("pressure %d is no percentage: %w", c.Pressure, errdefs.ErrInvalidArgument)
	}
	if err := c.Cleanup.Check(); err != nil {
		return fmt.Errorf("cleanup: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	if err := c.Mounts.Check(); err != nil {
		return fmt.Errorf("mounts: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	if err := c.checkReuse(); err != nil {
		return err
	}
	if err := c.Foreign.Check(); err != nil {
		return fmt.Errorf("foreign snapshots: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	return nil
}

var errClosed = fmt.Errorf("the snapshotter is closed: %w", errdefs.ErrUnavailable)

// usable answers an error once the snapshotter is closed.
func (s *Snapshotter) checkOpen() error {
	if s.closed.Load() {
		return errClosed
	}
	return nil
}

// maxUnderWay bounds how many operations of a class are under way at a time. On a pool
// that is suspended each keeps a thread of this process in the kernel, also when its
// caller has gone and asks again; of these a process may have ten thousand.
const maxConcurrent = 256

// class is a class of operations. Those of one hold up none of another.
type limiter struct{ slots chan struct{} }

func newLimiter() limiter { return limiter{make(chan struct{}, maxConcurrent)} }

// enter waits for a place. The zero class has no bound.
func (c limiter) enter(ctx context.Context) (leave func(), err error) {
	if c.slots == nil {
		return func() {}, nil
	}
	select {
	case c.slots <- struct{}{}:
		return func() { <-c.slots }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("%d operations are under way and none ends: 'zpool status' says whether the pool is suspended: %w", maxConcurrent, ctx.Err())
	}
}

// settle runs an operation that changes something. When ctx ends first the caller gets
// its error at once, while the operation goes on behind it to an end: fn must look at
// ctx before it changes anything and not after.
func detach[T any](ctx context.Context, s *Snapshotter, fn func(context.Context) (T, error)) (T, error) {
	return detachIn(ctx, s, s.changes, fn)
}

// settleIn is settle for an operation of a class.
func detachIn[T any](ctx context.Context, s *Snapshotter, c limiter, fn func(context.Context) (T, error)) (T, error) {
	type outcome struct {
		value T
		err   error
	}
	var none T
	if err := ctx.Err(); err != nil {
		return none, err
	}
	if err := s.checkOpen(); err != nil { // a Close that is under way holds no caller up
		return none, err
	}
	leave, err := c.enter(ctx)
	if err != nil {
		return none, err
	}
	done := make(chan outcome, 1)
	go func() {
		defer leave()
		s.closing.RLock()
		defer s.closing.RUnlock()
		if err := s.checkOpen(); err != nil {
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

// settleErr is settle for operations without a value.
func detachErr(ctx context.Context, s *Snapshotter, fn func(context.Context) error) error {
	_, err := detach(ctx, s, func(ctx context.Context) (struct{}, error) { return struct{}{}, fn(ctx) })
	return err
}
