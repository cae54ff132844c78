package reaper

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/containerd/errdefs"

	"github.com/zfstpl/zfstpl/snapshotter/holders"
	"github.com/zfstpl/zfstpl/snapshotter/internal/index"
	"github.com/zfstpl/zfstpl/snapshotter/internal/journal"
	"github.com/zfstpl/zfstpl/snapshotter/internal/keylock"
	"github.com/zfstpl/zfstpl/snapshotter/internal/mounts"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/space"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// ErrClosed is the error of operations after Stop.
var ErrClosed = fmt.Errorf("the snapshotter is closed: %w", errdefs.ErrUnavailable)

// Config is the configuration of a reaper. snapshotter.Config documents the fields.
type Config struct {
	Base          layout.Base
	CacheKeep     time.Duration
	CacheMaxBytes uint64
	Pressure      int
	Mode          Mode
	Foreign       Foreign
	CleanupDir    *os.Root
	// Holders finds the processes that have datasets mounted.
	Holders func(datasets ...string) map[string][]holders.Mount
	// Users finds the processes that use a file system, by its device.
	Users func(device uint64) []holders.User
}

// policy returns the configured policy of the cache.
func (c Config) policy() space.Policy {
	return space.Policy{Keep: c.CacheKeep, MaxBytes: c.CacheMaxBytes, Pressure: c.Pressure}
}

// Pool has the operations of ZFS that a reaper needs.
type Pool interface {
	List(ctx context.Context, root string) ([]zfs.Dataset, error)
	Mark(ctx context.Context, filesystem, prop, value string) error
	Destroy(ctx context.Context, own string, filesystems []string) (map[string]error, error)
	DestroyForeign(ctx context.Context, own, filesystem string) error
	Space(ctx context.Context, filesystem string) (zfs.Space, error)
	State(ctx context.Context) (zfs.PoolState, error)
	WaitFreed(ctx context.Context) error
	Device(ctx context.Context, filesystem string) (uint64, error)
}

// Parts are the parts of a snapshotter that a reaper shares.
type Parts struct {
	Index    *index.Index
	Journal  *journal.Journal
	Mounts   *mounts.Set
	Datasets *keylock.Locks // a dataset that an operation has locked is not destroyed
	// PauseReady waits until no ready runtime is being made, and prevents that until resume. It
	// returns an error if ctx ends first.
	PauseReady func(ctx context.Context) (resume func(), err error)
	// GiveUpReady makes all ready runtimes garbage, and none is created for a while.
	GiveUpReady func()
}

// Reaper destroys garbage, expired templates and, under pressure, cached templates. It keeps
// the base's cleanup mark and its cleanup list.
type Reaper struct {
	config Config
	pool   Pool
	Parts

	verify            bool // list each dataset again before it is destroyed
	cleanupMark       layout.CleanupMark
	cleanupMarkUnsure bool // whether the base may have another value than cleanupMark

	cleanup    cleanupLock
	background background
	activity   activity
	eviction   evictionState
	reclaimer  reclaimer
}

// New returns a reaper that is not started and has no parts yet.
func New(pool Pool, config Config) *Reaper {
	r := &Reaper{config: config, pool: pool}
	r.background.wake = make(chan struct{}, 1)
	return r
}

// Start starts the goroutine for cleanups in the background. ctx carries the logger.
func (r *Reaper) Start(ctx context.Context) { r.background.start(ctx, r) }

// Stop stops cleanups, evictions and reclaims, also those for which callers wait. Later ones
// return an error.
func (r *Reaper) Stop() {
	r.cleanup.close()
	r.background.stop()
	r.reclaimer.stop()
}

// BeginWrite records that an operation writes, until end. Batches are small meanwhile.
func (r *Reaper) BeginWrite() (end func()) { return r.activity.begin() }

// HasWaiters reports whether a caller waits for the end of a cleanup.
func (r *Reaper) HasWaiters() bool { return r.cleanup.HasWaiters() }

// Requested runs a cleanup that containerd requests. In the modes in which cleanups
// run at other times, it only flushes the journal.
func (r *Reaper) Requested(ctx context.Context) error {
	r.background.requestCleanup()
	if r.config.Mode != ModeGC {
		return r.flush(ctx)
	}
	return r.Clean(ctx, Options{})
}

// Explicit runs a cleanup in every mode, and ignores backoffs.
func (r *Reaper) Explicit(ctx context.Context, report func(Progress)) error {
	r.background.requestCleanup()
	return r.Clean(ctx, Options{ignoreBackoff: true, progress: newProgressReporter(report)})
}

// StopCleanup stops the running cleanup, and reports whether there was one. Until the next
// request for a cleanup, none begins in the background.
func (r *Reaper) StopCleanup() bool {
	r.background.pause()
	return r.cleanup.stop(errStopped, false)
}

// Resume prepares the reaper for the datasets of a cleanup list: it lists each again before
// it destroys it. From here on the list in the base is not valid.
func (r *Reaper) Resume(ctx context.Context, mark layout.CleanupMark) error {
	r.cleanupMark, r.verify = mark, true
	return r.updateMark(ctx, "")
}
