package journal

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zfstpl/zfstpl/snapshotter/internal/backoff"

	"github.com/containerd/log"

	"github.com/zfstpl/zfstpl/snapshotter/errkind"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

const (
	// Delay is how long the journal waits for more entries, which then share a
	// transaction group.
	Delay = 500 * time.Millisecond
	// LargeBatch is the maximum number of entries in one channel program, which holds the
	// pool's configuration lock while it runs.
	LargeBatch = 50
	// SmallBatch is that maximum while other operations write: their transactions wait
	// for the batch.
	SmallBatch = 5
)

// Journal is the list of changes of records that are not yet in the pool: removals, and
// repairs after failed operations. A goroutine writes them.
type Journal struct {
	mu             sync.Mutex
	pending        [][]zfs.Op // the entries, oldest first, each of one dataset
	repairs        int        // number of entries up to the last repair; 0 if there is none
	pauses         int        // number of pauses that have not ended
	notifyOnResume bool       // whether the goroutine skipped work during a pause

	flushing sync.Mutex   // held while entries are written: children before parents
	waiters  atomic.Int32 // number of callers that wait in acquire
	hooks    Hooks
	wake     chan struct{}
	quit     chan struct{}
	done     chan struct{}
}

// Hooks are the functions that a journal calls.
type Hooks struct {
	// Apply writes ops to the pool.
	Apply func(ctx context.Context, ops ...zfs.Op) error
	// Mark writes the cleanup mark. The goroutine calls it after each flush.
	Mark func(context.Context) error
	// MayBatch reports whether batches may be large.
	MayBatch func(urgent bool) bool
}

// New returns an empty journal whose goroutine is not started.
func New(h Hooks) *Journal {
	return &Journal{hooks: h, wake: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{})}
}

// Start starts the goroutine, which also writes what was added before.
func (j *Journal) Start() {
	j.Notify()
	go j.run()
}

// Stop ends the goroutine and writes all entries.
func (j *Journal) Stop() error {
	close(j.quit)
	<-j.done
	return j.FlushPaced(context.Background(), true)
}

// Append adds an entry: ops on one dataset. It never blocks.
func (j *Journal) Append(ops []zfs.Op) {
	j.mu.Lock()
	j.pending = append(j.pending, ops)
	j.mu.Unlock()
	j.Notify()
}

// AppendRepair is Append for ops that must be in the pool before another operation changes their
// dataset, see Barrier.
func (j *Journal) AppendRepair(ops []zfs.Op) {
	j.mu.Lock()
	j.pending = append(j.pending, ops)
	j.repairs = len(j.pending)
	j.mu.Unlock()
	j.Notify()
}

// Barrier writes all entries if the journal has a repair, because entries are written in
// order. Otherwise it does nothing. An operation calls it before it changes an existing
// dataset. Without it, the journal could write an older repair after that change, and revert
// it. If Barrier fails, the operation must not change the dataset.
func (j *Journal) Barrier(ctx context.Context) error {
	j.mu.Lock()
	repairs := j.repairs
	j.mu.Unlock()
	if repairs == 0 {
		return nil
	}
	return j.FlushPaced(ctx, true)
}

// DestroyAndSkip runs destroy, and then drops the entries of the datasets that it returns, also if
// destroy fails. It drops no entry if the journal has a repair. The journal writes nothing
// while destroy runs.
//
// template reports whether destroy may destroy a dataset that is a template. If such a
// dataset has an entry, DestroyAndSkip writes all entries first, in large batches if urgent
// is set. The reason is that ZFS destroys the template's @extracted before the template. After
// a crash in between, a template with a record and without @extracted counts as damaged, and
// recovery keeps it. If the pool has no space for the entries, destroy runs anyway, because it
// frees space. Any other error of the write is returned, and destroy does not run.
func (j *Journal) DestroyAndSkip(ctx context.Context, urgent bool, template func(dataset string) bool, destroy func() (gone []string, err error)) error {
	defer j.acquire()()
	if j.HasPending(template) {
		if err := j.writeAll(ctx, urgent); err != nil && !errkind.IsOutOfSpace(err) {
			return err
		}
	}
	gone, err := destroy()
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.repairs == 0 {
		j.pending = slices.DeleteFunc(j.pending, func(ops []zfs.Op) bool { return slices.Contains(gone, ops[0].Dataset()) })
	}
	return err
}

// Pause stops the goroutine's writes until the caller calls release.
func (j *Journal) Pause() (release func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.pauses++
	return func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		if j.pauses--; j.notifyOnResume || len(j.pending) > 0 {
			j.notifyOnResume = false
			j.Notify()
		}
	}
}

// isEnding reports whether stop was called.
func (j *Journal) isEnding() bool {
	select {
	case <-j.quit:
		return true
	default:
		return false
	}
}

// isPaused reports to the goroutine whether the journal is paused. If so, the goroutine is
// notified when the pause ends.
func (j *Journal) isPaused() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.notifyOnResume = j.notifyOnResume || j.pauses > 0
	return j.pauses > 0
}

// Notify wakes the goroutine. It never blocks.
func (j *Journal) Notify() {
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

func (j *Journal) run() {
	defer close(j.done)
	var retry <-chan time.Time // the next retry
	var pause time.Duration    // before it
	for {
		select {
		case <-j.quit:
			return
		case <-j.wake:
		case <-retry:
		}
		select {
		case <-j.quit:
			return
		case <-time.After(Delay):
		}
		err := j.flushInBackground(context.Background())
		if err == nil && j.isPaused() {
			continue
		}
		flushed := err == nil
		if flushed {
			err = j.hooks.Mark(context.Background())
		}
		if err == nil {
			pause = 0
			continue
		}
		pause = backoff.Next(pause)
		retry = time.After(pause)
		entry := log.L.WithError(err).WithField("retry_in", pause).WithField("pending", j.Len())
		if flushed {
			entry.Warn("failed to write cleanup mark")
		} else {
			entry.Warn("failed to write removals to the pool")
		}
	}
}

// Len returns the number of entries.
func (j *Journal) Len() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.pending)
}

// Flush writes all entries, oldest first. It drops an entry whose dataset does not exist.
// At any other error the batch and the entries after it stay for the next flush.
func (j *Journal) Flush(ctx context.Context) error { return j.FlushPaced(ctx, false) }

// FlushPaced is flush. If urgent is set, it writes large batches even while other
// operations write.
func (j *Journal) FlushPaced(ctx context.Context, urgent bool) error {
	if j.Len() == 0 {
		return nil
	}
	defer j.acquire()()
	return j.writeAll(ctx, urgent)
}

// acquire locks flushing and returns its unlock. flushInBackground yields to it.
func (j *Journal) acquire() (release func()) {
	j.waiters.Add(1)
	j.flushing.Lock()
	j.waiters.Add(-1)
	return j.flushing.Unlock
}

// IsAwaited reports whether a caller waits in acquire.
func (j *Journal) IsAwaited() bool { return j.waiters.Load() > 0 }

// flushInBackground is flush for the goroutine. It ends early if acquire is waiting or the
// journal is paused: the cleanup that follows may drop entries.
func (j *Journal) flushInBackground(ctx context.Context) error {
	if j.Len() == 0 || j.isPaused() {
		return nil
	}
	j.flushing.Lock()
	defer j.flushing.Unlock()
	for !j.isPaused() && !j.isEnding() {
		if j.IsAwaited() {
			j.Notify() // the waiter may leave entries
			return nil
		}
		if more, err := j.writeSome(ctx, false); !more || err != nil {
			return err
		}
	}
	return nil
}

// HasPending reports whether there is an entry of a dataset for which match reports true.
func (j *Journal) HasPending(match func(dataset string) bool) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.ContainsFunc(j.pending, func(ops []zfs.Op) bool { return match(ops[0].Dataset()) })
}

// writeAll writes all entries. The caller holds flushing.
func (j *Journal) writeAll(ctx context.Context, urgent bool) error {
	for {
		if more, err := j.writeSome(ctx, urgent); !more || err != nil {
			return err
		}
	}
}

// writeSome writes a batch of entries and reports whether there are more. The caller holds
// flushing.
func (j *Journal) writeSome(ctx context.Context, urgent bool) (more bool, err error) {
	most := SmallBatch
	if j.hooks.MayBatch(urgent) {
		most = LargeBatch
	}
	j.mu.Lock()
	batch := j.pending[:min(len(j.pending), most)]
	j.mu.Unlock()
	if len(batch) == 0 {
		return false, nil
	}
	if err := j.write(ctx, batch); err != nil {
		return true, err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.pending = j.pending[len(batch):]
	j.repairs = max(0, j.repairs-len(batch))
	return len(j.pending) > 0, nil
}

func (j *Journal) write(ctx context.Context, batch [][]zfs.Op) error {
	var all []zfs.Op
	for _, ops := range batch {
		all = append(all, ops...)
	}
	if err := j.hooks.Apply(ctx, all...); !errors.Is(err, zfs.ErrNotFound) {
		return err
	}
	// A dataset does not exist: apply each entry separately.
	for _, ops := range batch {
		if err := j.hooks.Apply(ctx, ops...); err != nil && !errors.Is(err, zfs.ErrNotFound) {
			return err
		}
	}
	return nil
}
