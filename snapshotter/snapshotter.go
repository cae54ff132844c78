package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zfstpl/zfstpl/snapshotter/internal/index"
	"github.com/zfstpl/zfstpl/snapshotter/internal/mounts"
	"github.com/zfstpl/zfstpl/snapshotter/internal/recovery"
	"github.com/zfstpl/zfstpl/snapshotter/setup"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"github.com/zfstpl/zfstpl/snapshotter/holders"
	"github.com/zfstpl/zfstpl/snapshotter/internal/journal"
	"github.com/zfstpl/zfstpl/snapshotter/internal/keylock"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/space"
)

// The locks of this package, in the order in which they are taken:
//
//  1. Snapshotter.writes, queries: limiters, one slot for each operation.
//  2. Snapshotter.closing: for reading by each operation, for writing by Close.
//  3. Snapshotter.keys: by snapshot name. An operation takes several in sorted order.
//  4. Snapshotter.datasets: by dataset. An operation takes at most one.
//  5. reclaim.done: not a lock; an operation waits for a reclaim, which takes the locks
//     below.
//  6. Snapshotter.cleanup: one cleanup, eviction or reclaim at a time.
//  7. journal.flushing: one writer of the journal at a time.
//  8. mounts.Set.locks: by dataset, for view mounts and held mounts. One at a time.
//  9. index.mu: never held during a call to the pool.
//  10. journal.mu.
//
// A goroutine that holds one of these takes none with a smaller number. In particular the
// holder of cleanup or flushing never waits for a reclaim: it calls journal.barrier, not
// Snapshotter.barrier or withReclaim.
//
// No lock is taken under the other mutexes: Locks.mu, cleanupLock.mu, background.mu,
// activity.mu, reclaimer.mu, evictionState.mu and mounts.Set.mu.
//
// Exceptions:
//   - Remove has no limit, and Clean takes no slot. Stat, Walk, Mounts, NamespaceOf,
//     HeldAt, StandIn, Fill, Begin and StopCleanup take neither a slot nor closing,
//     except that Stat does to restore a record. Usage takes them only to restore a record
//     or to query the pool.
//   - A reclaim has a goroutine of its own. It takes cleanup while its callers hold
//     closing, keys and datasets.
//   - Out of order, but without waiting: a cleanup takes datasets with TryLockEach while
//     it holds cleanup and flushing; InsertHealed takes keys with TryLockEach; Remove
//     takes its key with LockOrDefer.
//   - The holder of a key runs the deferred Remove before it unlocks the key. The Remove
//     takes index.mu and journal.mu.
//   - destination unlocks a dataset while it holds index.mu. Unlocking takes only
//     Locks.mu, because nothing is deferred on a lock of datasets.
//   - Close calls mounts.Set.Close, which holds mounts.Set.mu while it unmounts. No other
//     goroutine uses view mounts then.
//   - New and Resume use the index and the journal without locks before they start
//     goroutines.
//   - Snapshotter.cleanupMark has no lock. New and Resume use it before the goroutine of
//     the journal starts, then only that goroutine and, after it has ended, Close.

// KeepForever as Config.CacheKeep never evicts a template for its age.
const KeepForever = space.Forever

// Config is the configuration of a Snapshotter.
type Config struct {
	Base layout.Base
	// CacheKeep is how long a template without records stays cached. If it is zero, the
	// next cleanup destroys the template.
	CacheKeep time.Duration
	// CacheMaxBytes limits the space of all cached templates; zero means no limit.
	CacheMaxBytes uint64
	// Pressure is a percentage of the pool or of a quota on the base or above it. While
	// the use is higher, cached templates are evicted, the least recently used first.
	// Zero disables that.
	Pressure int
	// OwnTemplates gives each containerd namespace its own templates. No namespace finds
	// or joins a layer of another.
	OwnTemplates bool
	// ReuseLayers is the mode for a requested layer that is in the pool. ReuseLayersIn
	// overrides it for containerd namespaces. Empty means ReuseAuto.
	ReuseLayers   ReuseMode
	ReuseLayersIn map[string]ReuseMode
	// Foreign is the policy for foreign snapshots of datasets that are to be destroyed.
	// Empty means KeepForeign.
	Foreign ForeignPolicy
	// Cleanup selects when cleanups run. Empty means CleanupGC.
	Cleanup CleanupMode
	// CleanupDir is the directory in which Close saves the cleanup list. If it is nil,
	// Close saves none.
	CleanupDir *os.Root
	// Quota limits what a container can add to its image, in bytes; zero means no limit.
	// The label containerd.io/snapshot/max-size overrides it.
	Quota uint64

	// MountDir is the directory of held mounts. It is on tmpfs and only root can access
	// it. If it is empty, no mount is held and clients mount datasets, whatever Mounts is.
	MountDir string
	// Mounts selects how clients mount active snapshots. Empty means MountAuto.
	Mounts MountForm

	// holders finds the processes that have datasets mounted. Tests replace it.
	holders func(datasets ...string) map[string][]holders.Mount
	// users finds the processes that use a file system, by its device. Tests replace it.
	users func(device uint64) []holders.User
	// holder replaces the mounts in MountDir in tests.
	holder mounts.Holder
}

// Snapshotter implements containerd's snapshots.Snapshotter and
// snapshots.Cleaner.
type Snapshotter struct {
	config   Config
	pool     Pool
	index    *index.Index
	keys     keylock.Locks // by snapshot name
	datasets keylock.Locks // by dataset
	journal  *journal.Journal

	mounts *mounts.Set

	reaper *reaper

	writes  limiter // operations that write, except Remove, which never blocks
	queries limiter // operations that only query the pool

	closing sync.RWMutex // see the lock order above
	closed  atomic.Bool
}

var (
	_ snapshots.Snapshotter = (*Snapshotter)(nil)
	_ snapshots.Cleaner     = (*Snapshotter)(nil)
)

// New lists the pool, recovers interrupted operations and returns a Snapshotter. The base
// must exist (see setup.Init). No other snapshotter may use it: the caller holds its lock.
func New(ctx context.Context, pool Pool, config Config) (*Snapshotter, error) {
	if err := config.check(); err != nil {
		return nil, err
	}
	holder, err := openHolder(pool, config)
	if err != nil {
		return nil, err
	}
	s := newSnapshotter(pool, config, holder)
	if err := s.recover(ctx); err != nil {
		return nil, err
	}
	s.mounts.ReleaseAll(ctx, s.index.IsGarbage)
	s.mountViews(ctx)
	s.journal.Start()
	s.reaper.startUp(context.WithoutCancel(ctx))
	return s, nil
}

func newSnapshotter(pool Pool, config Config, holder mounts.Holder) *Snapshotter {
	if config.holders == nil {
		config.holders = func(datasets ...string) map[string][]holders.Mount { return holders.Find(holders.Proc, datasets...) }
	}
	if config.users == nil {
		config.users = func(device uint64) []holders.User { return holders.FindOpen(holders.Proc, device) }
	}
	s := &Snapshotter{config: config, pool: pool, mounts: mounts.NewSet(holder, pool.Attach), writes: newLimiter(), queries: newLimiter()}
	s.reaper = newReaper(pool, config.reaper())
	s.journal = journal.New(journal.Hooks{Apply: pool.Apply, Mark: s.reaper.markAfterFlush, MayBatch: s.reaper.mayBatch})
	s.setIndex(index.New())
	return s
}

// recover builds the index from one listing of the pool, and finishes or rolls back
// interrupted commits.
func (s *Snapshotter) recover(ctx context.Context) error {
	base := s.config.Base
	list, err := s.pool.List(ctx, base.String())
	if err != nil {
		return setup.ListError(base, err)
	}
	if err := setup.Check(base, list); err != nil {
		return err
	}
	if err := s.reaper.readMark(ctx, list); err != nil {
		return err
	}
	plan, err := recovery.NewPlan(base, list, time.Now())
	if err != nil {
		return err
	}
	if err := plan.Execute(ctx, s.pool); err != nil {
		return err
	}
	s.setIndex(plan.Index)
	for _, ops := range plan.Repairs {
		s.journal.AppendRepair(ops)
	}
	for _, ops := range plan.Removals {
		s.journal.Append(ops)
	}
	return nil
}

// setIndex sets the index, before other goroutines use it.
func (s *Snapshotter) setIndex(x *index.Index) {
	s.index = x
	x.OnGarbage = s.journal.Notify
	s.reaper.reaperParts = reaperParts{Index: x, Journal: s.journal, Mounts: s.mounts, Datasets: &s.datasets}
}

// Close stops cleanups, evictions and reclaims, also those for which callers wait. It
// waits for running operations, writes the journal to the pool and saves the cleanup
// list. Every later call except Close returns an error.
func (s *Snapshotter) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	s.reaper.shutDown()
	s.closing.Lock()
	defer s.closing.Unlock()
	err := s.journal.Stop()
	s.mounts.ReleaseAll(context.Background(), s.index.IsGarbage)
	if err == nil {
		err = s.reaper.saveCleanupList(context.Background())
	}
	return errors.Join(err, s.mounts.Close())
}

func (c Config) check() error {
	if c.Quota > maxQuota {
		return fmt.Errorf("quota %d is larger than %d bytes: %w", c.Quota, uint64(maxQuota), errdefs.ErrInvalidArgument)
	}
	if c.Pressure < 0 || c.Pressure > 100 {
		return fmt.Errorf("pressure %d is not between 0 and 100 percent: %w", c.Pressure, errdefs.ErrInvalidArgument)
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

// reaper returns the configuration of the reaper.
func (c Config) reaper() reaperConfig {
	return reaperConfig{
		Base: c.Base, CacheKeep: c.CacheKeep, CacheMaxBytes: c.CacheMaxBytes, Pressure: c.Pressure,
		Mode: c.Cleanup, Foreign: c.Foreign, CleanupDir: c.CleanupDir, Holders: c.holders, Users: c.users,
	}
}
