package snapshotter

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/zfstpl/zfstpl/snapshotter/internal/index"
	"github.com/zfstpl/zfstpl/snapshotter/internal/mounts"
	"github.com/zfstpl/zfstpl/snapshotter/internal/reaper"
	"github.com/zfstpl/zfstpl/snapshotter/internal/recordlog"
	"github.com/zfstpl/zfstpl/snapshotter/internal/recovery"
	"github.com/zfstpl/zfstpl/snapshotter/setup"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"github.com/zfstpl/zfstpl/snapshotter/holders"
	"github.com/zfstpl/zfstpl/snapshotter/internal/journal"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/space"
)

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
	// Root is the root directory of the base. It has the log and the cleanup list. If it is
	// nil, there is neither.
	Root *os.Root
	// CheckLog returns the reason why the log must not be used, or nil. It may be nil.
	CheckLog func(context.Context) error
	// Quota limits what a container can add to its image, in bytes; zero means no limit.
	// The label containerd.io/snapshot/max-size overrides it.
	Quota uint64

	// Ready is the most runtimes that are made in advance, so that a container's start waits
	// for no transaction group. Zero makes none.
	Ready int

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
	// wrapLog replaces the file of the log in tests.
	wrapLog func(recordlog.File) recordlog.File
}

// Snapshotter implements containerd's snapshots.Snapshotter and
// snapshots.Cleaner.
type Snapshotter struct {
	config  Config
	pool    Pool
	gate    *gate
	locks   locks
	index   *index.Index
	journal *journal.Journal
	mounts  *mounts.Set
	reaper  *reaper.Reaper
	ready   *readySupply
}

var (
	_ snapshots.Snapshotter = (*Snapshotter)(nil)
	_ snapshots.Cleaner     = (*Snapshotter)(nil)
)

// New lists the pool, recovers interrupted operations and returns a Snapshotter. The base
// must exist (see setup.Init). No other snapshotter may use it: the caller holds its lock.
func New(ctx context.Context, pool Pool, config Config) (*Snapshotter, error) {
	s, err := newSnapshotter(pool, config)
	if err != nil {
		return nil, err
	}
	if err := s.recover(ctx); err != nil {
		return nil, err
	}
	s.mounts.ReleaseAll(ctx, s.index.IsGarbage)
	for _, t := range s.index.Viewed() {
		s.mounts.AttachView(ctx, t.Dataset(), t.Snapshot())
	}
	s.journal.Start()
	s.reaper.Start(context.WithoutCancel(ctx))
	go s.supplyReady(context.WithoutCancel(ctx))
	return s, nil
}

// newSnapshotter returns a Snapshotter with an empty index, whose goroutines are not started.
func newSnapshotter(pool Pool, config Config) (*Snapshotter, error) {
	config = config.withDefaults()
	if err := config.check(); err != nil {
		return nil, err
	}
	holder, err := openHolder(pool, config)
	if err != nil {
		return nil, err
	}
	s := &Snapshotter{config: config, pool: pool, mounts: mounts.NewSet(holder, pool.Attach), gate: newGate(), ready: newReadySupply(config.Ready)}
	s.reaper = reaper.New(pool, config.reaper())
	s.journal = journal.New(journal.Hooks{
		Apply: pool.Apply, Mark: s.reaper.MarkAfterFlush, MayBatch: s.reaper.MayBatch, CheckLog: config.CheckLog,
	})
	s.setIndex(index.New())
	return s, nil
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
	if err := s.reaper.ReadMark(ctx, list); err != nil {
		return err
	}
	if err := s.openLog(ctx, list); err != nil {
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
	s.reaper.Parts = reaper.Parts{Index: x, Journal: s.journal, Mounts: s.mounts, Datasets: &s.locks.datasets, PauseReady: s.ready.pauseMaking, GiveUpReady: s.giveUpReady}
}

// giveUpReady makes all ready runtimes garbage, for lack of space.
func (s *Snapshotter) giveUpReady() {
	now := time.Now()
	s.ready.pause(now)
	s.index.GiveUpReady(func(index.Ready) bool { return true }, now)
}

// Close stops cleanups, evictions and reclaims, also those for which callers wait. It
// waits for running operations, writes the journal to the pool and saves the cleanup
// list. Every later call except Close returns an error.
func (s *Snapshotter) Close() error {
	if s.gate.closed.Swap(true) {
		return nil
	}
	s.reaper.Stop()
	s.ready.stop()
	s.gate.closing.Lock()
	defer s.gate.closing.Unlock()
	s.resolveAll(context.Background())
	s.giveUpReady()
	err := s.journal.Stop()
	s.mounts.ReleaseAll(context.Background(), s.index.IsGarbage)
	if err == nil {
		err = s.reaper.SaveList(context.Background())
	}
	return errors.Join(err, s.mounts.Close())
}

// withDefaults returns c with the defaults of its empty fields.
func (c Config) withDefaults() Config {
	c.ReuseLayers = cmp.Or(c.ReuseLayers, ReuseAuto)
	c.Foreign = cmp.Or(c.Foreign, KeepForeign)
	c.Cleanup = cmp.Or(c.Cleanup, CleanupGC)
	c.Mounts = cmp.Or(c.Mounts, MountAuto)
	if c.CheckLog == nil {
		c.CheckLog = func(context.Context) error { return nil }
	}
	if c.holders == nil {
		c.holders = func(datasets ...string) map[string][]holders.Mount { return holders.Find(holders.Proc, datasets...) }
	}
	if c.users == nil {
		c.users = func(device uint64) []holders.User { return holders.FindOpen(holders.Proc, device) }
	}
	return c
}

func (c Config) check() error {
	if c.Quota > maxQuota {
		return fmt.Errorf("quota %d is larger than %d bytes: %w", c.Quota, uint64(maxQuota), errdefs.ErrInvalidArgument)
	}
	if c.Pressure < 0 || c.Pressure > 100 {
		return fmt.Errorf("pressure %d is not between 0 and 100 percent: %w", c.Pressure, errdefs.ErrInvalidArgument)
	}
	if c.Ready < 0 {
		return fmt.Errorf("number of ready runtimes %d is negative: %w", c.Ready, errdefs.ErrInvalidArgument)
	}
	err := cmp.Or(
		invalid("cleanup", c.Cleanup.Check()),
		invalid("mounts", c.Mounts.Check()),
		invalid("reuse of layers", c.ReuseLayers.Check()),
		invalid("foreign snapshots", c.Foreign.Check()))
	for namespace, mode := range c.ReuseLayersIn {
		err = cmp.Or(err, invalid(fmt.Sprintf("reuse of layers in namespace %q", namespace), mode.Check()))
	}
	return err
}

// invalid wraps the error of a setting. It returns nil for nil.
func invalid(setting string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w: %w", setting, err, errdefs.ErrInvalidArgument)
}

// logDir returns the directory of the log.
func (c Config) logDir() recordlog.Dir { return recordlog.Dir{Root: c.Root, Wrap: c.wrapLog} }

// reaper returns the configuration of the reaper.
func (c Config) reaper() reaper.Config {
	return reaper.Config{
		Base: c.Base, CacheKeep: c.CacheKeep, CacheMaxBytes: c.CacheMaxBytes, Pressure: c.Pressure,
		Mode: c.Cleanup, Foreign: c.Foreign, CleanupDir: c.Root, Holders: c.holders, Users: c.users,
	}
}
