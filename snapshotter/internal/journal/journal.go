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

// Journal is the list of changes of records that the properties in the pool do not have yet. A
// goroutine writes them. If the base has a log, an entry is durable before that.
type Journal struct {
	mu             sync.Mutex
	pending        []*entry  // the entries, oldest first
	written        sync.Cond // signals that no entry of a batch is being written any more
	pauses         int       // number of pauses that have not ended
	notifyOnResume bool      // whether the goroutine skipped work during a pause
	log            logState

	flushing sync.Mutex   // held while entries are written: children before parents
	waiters  atomic.Int32 // number of callers that wait in acquire
	hooks    Hooks
	wake     chan struct{}
	quit     chan struct{}
	done     chan struct{}
}

// entry is a change of one dataset. Journal.mu guards the fields that change.
type entry struct {
	ops    []zfs.Op
	group  *group    // the change of which this is a part
	added  time.Time // when it was added
	repair bool      // see AppendRepair
	busy   bool      // a flush or an Include writes it
}

func (e *entry) dataset() string { return e.ops[0].Dataset() }

// Hooks are the functions that a journal calls.
type Hooks struct {
	// Apply writes ops to the pool.
	Apply func(ctx context.Context, ops ...zfs.Op) error
	// Mark writes the cleanup mark. The goroutine calls it after each flush.
	Mark func(context.Context) error
	// MayBatch reports whether batches may be large.
	MayBatch func(urgent bool) bool
	// CheckLog returns the reason why a log must not be used, or nil. The goroutine calls it
	// before it writes entries to the pool.
	CheckLog func(context.Context) error
}

// New returns an empty journal whose goroutine is not started.
func New(h Hooks) *Journal {
	j := &Journal{hooks: h, wake: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{})}
	j.written.L = &j.mu
	return j
}

// Start starts the goroutine, which also writes what was added before.
func (j *Journal) Start() {
	j.Notify()
	go j.run()
}

// Stop ends the goroutine, writes all entries to the pool and closes the log.
func (j *Journal) Stop() error {
	close(j.quit)
	<-j.done
	return errors.Join(j.FlushPaced(context.Background(), true), j.closeLog())
}

// Append adds an entry: ops on one dataset. It never blocks.
func (j *Journal) Append(ops []zfs.Op) { j.add(&group{ops: ops}, false) }

// AppendRepair is Append for ops that must be in the pool before another operation changes their
// dataset, see Barrier.
func (j *Journal) AppendRepair(ops []zfs.Op) { j.add(&group{ops: ops}, true) }

// add adds a change: one entry for each dataset.
func (j *Journal) add(g *group, repair bool) *group {
	now := time.Now()
	j.mu.Lock()
	for _, of := range byDataset(g.ops) {
		j.pending = append(j.pending, &entry{ops: of, group: g, added: now, repair: repair})
	}
	if j.log.file != nil {
		j.log.queue = append(j.log.queue, g)
	}
	j.mu.Unlock()
	j.Notify()
	return g
}

// byDataset splits ops where the dataset changes.
func byDataset(ops []zfs.Op) (split [][]zfs.Op) {
	for len(ops) > 0 {
		n := slices.IndexFunc(ops, func(op zfs.Op) bool { return op.Dataset() != ops[0].Dataset() })
		if n < 0 {
			n = len(ops)
		}
		split = append(split, ops[:n])
		ops = ops[n:]
	}
	return split
}

// Barrier makes all entries durable if the journal has a repair. Otherwise it does nothing. An
// operation calls it before it changes an existing dataset by itself. Without it, the journal
// could write an older repair after that change, and revert it. If Barrier fails, the operation
// must not change the dataset.
func (j *Journal) Barrier(ctx context.Context) error {
	j.mu.Lock()
	repairs := j.hasRepair()
	j.mu.Unlock()
	if !repairs {
		return nil
	}
	return j.Settle(ctx, true)
}

// hasRepair reports whether there is a repair that is not durable. The caller holds the mutex.
func (j *Journal) hasRepair() bool {
	return slices.ContainsFunc(j.pending, func(e *entry) bool { return e.repair && !e.group.synced })
}

// DestroyAndSkip runs destroy, and then drops the entries of the datasets that it returns, also if
// destroy fails. It drops no entry if the journal has a repair. The journal writes nothing
// while destroy runs.
//
// template reports whether destroy may destroy a dataset that is a template. If such a
// dataset has an entry, DestroyAndSkip first writes all entries to the log, or else to the pool,
// in large batches if urgent is set. The reason is that ZFS destroys the template's @extracted
// before the template. After a crash in between, a template with a record and without
// @extracted counts as damaged, and recovery keeps it. The log need not be synchronised: what
// was written to a file before a transaction group is durable with it. If the pool has no space for the entries, destroy runs anyway, because it
// frees space. Any other error of the write is returned, and destroy does not run.
func (j *Journal) DestroyAndSkip(ctx context.Context, urgent bool, template func(dataset string) bool, destroy func() (gone []string, err error)) error {
	defer j.acquire()()
	if j.HasPending(template) && j.writeLog(false) != nil {
		if err := j.writeAll(ctx, urgent); err != nil && !errkind.IsOutOfSpace(err) {
			return err
		}
	}
	gone, err := destroy()
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.hasRepair() {
		j.drop(func(e *entry) bool { return slices.Contains(gone, e.dataset()) })
	}
	return err
}

// drop removes entries, also from those that are not yet in the log. The caller holds the mutex.
func (j *Journal) drop(gone func(*entry) bool) {
	j.pending = slices.DeleteFunc(j.pending, gone)
	left := make(map[*group]bool)
	for _, e := range j.pending {
		left[e.group] = true
	}
	j.log.queue = slices.DeleteFunc(j.log.queue, func(g *group) bool { return !left[g] })
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
		again, err := j.work(context.Background())
		if again > 0 {
			retry = time.After(again)
		}
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
		j.truncateLog()
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

// work makes the entries durable and, when it is time, writes them to the pool. It returns
// after which time it has more to do; 0 for never.
func (j *Journal) work(ctx context.Context) (again time.Duration, err error) {
	logged := j.writeLog(true) == nil // also during a pause, which only keeps copies off the pool
	if j.isPaused() {
		return 0, nil
	}
	if logged {
		if wait := j.untilCopy(time.Now()); wait > 0 {
			return wait, nil
		}
	}
	if j.Len() > 0 {
		j.CheckLog(ctx)
	}
	return 0, j.flushInBackground(ctx)
}

// HasPending reports whether there is an entry of a dataset for which match reports true.
func (j *Journal) HasPending(match func(dataset string) bool) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.ContainsFunc(j.pending, func(e *entry) bool { return match(e.dataset()) })
}

// HasRemoval reports whether there is a removal of a property of dataset that is not durable.
func (j *Journal) HasRemoval(dataset string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.ContainsFunc(j.pending, func(e *entry) bool {
		return e.dataset() == dataset && !e.group.synced && slices.ContainsFunc(e.ops, func(op zfs.Op) bool {
			_, value, ok := op.Property()
			return ok && value == nil
		})
	})
}

// writeAll writes all entries, and then truncates the log. The caller holds flushing.
func (j *Journal) writeAll(ctx context.Context, urgent bool) error {
	for {
		if more, err := j.writeSome(ctx, urgent); !more || err != nil {
			return err
		}
	}
}

// writeSome writes a batch of entries and reports whether there are more. When it has written
// the last one, it truncates the log. The caller holds flushing.
func (j *Journal) writeSome(ctx context.Context, urgent bool) (more bool, err error) {
	most := SmallBatch
	if j.hooks.MayBatch(urgent) {
		most = LargeBatch
	}
	_ = j.writeLog(false) // what is not in the log then gets a mark, see copyOps
	batch := j.take(most)
	if len(batch) == 0 {
		return false, nil
	}
	err = j.write(ctx, batch)
	j.mu.Lock()
	j.release(batch, err == nil)
	more = len(j.pending) > 0
	j.mu.Unlock()
	if err != nil {
		return true, err
	}
	if !more {
		j.truncateLog()
	}
	return more, nil
}

// take marks the oldest entries as busy and returns them. It skips those that an Include
// writes, and what follows on their datasets.
func (j *Journal) take(most int) (batch []*entry) {
	j.mu.Lock()
	defer j.mu.Unlock()
	skip := make(map[string]bool)
	for _, e := range j.pending {
		switch {
		case e.busy || skip[e.dataset()]:
			skip[e.dataset()] = true
		case len(batch) < most:
			e.busy = true
			batch = append(batch, e)
		}
	}
	return batch
}

// release ends the write of entries, and removes them if they are in the pool. The caller holds
// the mutex.
func (j *Journal) release(batch []*entry, inPool bool) {
	for _, e := range batch {
		e.busy = false
	}
	if inPool {
		j.drop(func(e *entry) bool { return slices.Contains(batch, e) })
	}
	j.written.Broadcast()
}

func (j *Journal) write(ctx context.Context, batch []*entry) error {
	if err := j.hooks.Apply(ctx, j.copyOps(batch...)...); !errors.Is(err, zfs.ErrNotFound) {
		return err
	}
	// A dataset does not exist: apply each entry separately.
	for _, e := range batch {
		if err := j.hooks.Apply(ctx, j.copyOps(e)...); err != nil && !errors.Is(err, zfs.ErrNotFound) {
			return err
		}
	}
	return nil
}
