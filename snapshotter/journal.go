package snapshotter

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/log"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

const (
	// removalDelay is how long a removal may wait for others to share its txg.
	journalDelay = 500 * time.Millisecond
	// removalBatch bounds how many removals are one channel program: the pool's
	// configuration lock is held while it runs.
	largeBatch = 50
	// politeBatch is what that is while somebody is at work: his next transaction
	// begins when theirs is over.
	smallBatch = 5
)

// removals are records that have left the index and not yet the pool.
type journal struct {
	mu             sync.Mutex
	pending        [][]zfs.Op // one entry a removal, oldest first
	repairs        int        // how many of them there are up to the last repair, see rollback.go
	pauses         int        // cleanups that are destroying what need not be written
	notifyOnResume bool       // it was to be written, or marked, while it was held

	flushing sync.Mutex   // keeps batches in order: children before their parents
	waiters  atomic.Int32 // how many wait for that
	apply    func(context.Context, ...zfs.Op) error
	mark     func(context.Context) error // makes the base say what is owed
	mayBatch func(urgent bool) bool      // whether the work of others counts less
	wake     chan struct{}
	quit     chan struct{}
	done     chan struct{}
}

func (j *journal) start(s *Snapshotter) {
	j.apply = s.pool.Apply
	j.mark = func(ctx context.Context) error {
		s.background.notify() // what made the mark another is news to it too
		return s.updateMark(ctx, "")
	}
	j.mayBatch = s.mayBatch
	j.quit, j.done = make(chan struct{}), make(chan struct{})
	j.notify() // for what recovery found to be written
	go j.run()
}

// stop writes what is pending and ends the goroutine.
func (j *journal) stop() error {
	close(j.quit)
	<-j.done
	return j.flushPaced(context.Background(), true)
}

func (j *journal) add(ops []zfs.Op) {
	j.mu.Lock()
	j.pending = append(j.pending, ops)
	j.mu.Unlock()
	j.notify()
}

// repair is add for ops that must be in the pool before anything else is changed
// about their datasets; see catchUp.
func (j *journal) repair(ops []zfs.Op) {
	j.mu.Lock()
	j.pending = append(j.pending, ops)
	j.repairs = len(j.pending)
	j.mu.Unlock()
	j.notify()
}

// barrier writes what is pending if there is a repair among it. Whoever is about
// to change a dataset that is there already comes here first, or the repair would
// undo his work.
func (j *journal) barrier(ctx context.Context) error {
	j.mu.Lock()
	repairs := j.repairs
	j.mu.Unlock()
	if repairs == 0 {
		return nil
	}
	return j.flushPaced(ctx, true)
}

// destroyAndSkip runs destroy, while nothing is written, and forgets the removals of
// the datasets that it destroyed.
//
// If there are any of templates that are to be destroyed, all are written before. A
// template loses its snapshot first: with a record it would then look as if a stranger
// had taken that, and the next start would leave it alone, and all it stands on. But
// where there is no room to write them, room has to be made first.
func (j *journal) destroyAndSkip(ctx context.Context, urgent bool, template func(dataset string) bool, destroy func() (gone []string, err error)) error {
	defer j.acquire()()
	if j.hasPending(template) {
		if err := j.writeAll(ctx, urgent); err != nil && !outOfSpace(err) {
			return err
		}
	}
	names, err := destroy()
	gone := make(map[string]bool, len(names))
	for _, name := range names {
		gone[name] = true
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.repairs == 0 {
		j.pending = slices.DeleteFunc(j.pending, func(ops []zfs.Op) bool { return gone[ops[0].Dataset()] })
	}
	return err
}

// holdBack keeps what is pending from being written by itself, until what it answers
// is called.
func (j *journal) pause() (release func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.pauses++
	return func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		if j.pauses--; j.notifyOnResume || len(j.pending) > 0 {
			j.notifyOnResume = false
			j.notify()
		}
	}
}

func (j *journal) isEnding() bool {
	select {
	case <-j.quit:
		return true
	default:
		return false
	}
}

func (j *journal) isPaused() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.pauses > 0
}

// deferIfPaused tells whether it is held back, and then has it poked when that is over.
func (j *journal) deferIfPaused() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.notifyOnResume = j.notifyOnResume || j.pauses > 0
	return j.pauses > 0
}

func (j *journal) notify() {
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

func (j *journal) run() {
	defer close(j.done)
	again := time.NewTimer(maxBackoff) // one, however often it fails
	defer again.Stop()
	again.Stop()
	var pause time.Duration // before the next attempt, where the last one failed
	for {
		select {
		case <-j.quit:
			return
		case <-j.wake:
		case <-again.C:
		}
		select {
		case <-j.quit:
			return
		case <-time.After(journalDelay):
		}
		err := j.flushInBackground(context.Background())
		if err == nil && j.deferIfPaused() {
			continue // it will be poked
		}
		message := "removals could not be written to the pool: they are tried again, and with the next one"
		if err == nil {
			message = "the base could not be marked as owed a cleanup: it is tried again, and with the next removal"
			err = j.mark(context.Background())
		}
		if err == nil {
			pause = 0
			continue
		}
		pause = min(max(2*pause, minBackoff), maxBackoff)
		log.L.WithError(err).WithField("again", pause).WithField("pending", j.length()).Warn(message)
		again.Reset(pause)
	}
}

func (j *journal) empty() bool { return j.length() == 0 }

func (j *journal) length() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.pending)
}

// flush writes pending removals, oldest first. Those of datasets that are no
// longer there are done; any other failure keeps the batch and what is behind
// it for the next flush.
func (j *journal) flush(ctx context.Context) error { return j.flushPaced(ctx, false) }

// flushPaced is flush. If urgent is set, it writes large batches also while operations
// write.
func (j *journal) flushPaced(ctx context.Context, urgent bool) error {
	if j.empty() {
		return nil
	}
	defer j.acquire()()
	return j.writeAll(ctx, urgent)
}

// turn waits for the turn of whoever waits for it to end, and answers what ends it.
func (j *journal) acquire() (end func()) {
	j.waiters.Add(1)
	j.flushing.Lock()
	j.waiters.Add(-1)
	return j.flushing.Unlock
}

// flushInBackground is a flush that nobody waits for. It leaves off when somebody wants the
// turn, and when a cleanup begins, which may make it needless.
func (j *journal) flushInBackground(ctx context.Context) error {
	if j.empty() || j.isPaused() {
		return nil
	}
	j.flushing.Lock()
	defer j.flushing.Unlock()
	for !j.isPaused() && !j.isEnding() {
		if j.waiters.Load() > 0 {
			j.notify() // who comes now may leave some
			return nil
		}
		if more, err := j.writeSome(ctx, false); !more || err != nil {
			return err
		}
	}
	return nil
}

// has tells whether a removal is pending of a dataset of which is says so.
func (j *journal) hasPending(is func(dataset string) bool) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.ContainsFunc(j.pending, func(ops []zfs.Op) bool { return is(ops[0].Dataset()) })
}

// writeAll is flush for who has the turn.
func (j *journal) writeAll(ctx context.Context, urgent bool) error {
	for {
		if more, err := j.writeSome(ctx, urgent); !more || err != nil {
			return err
		}
	}
}

// writeSome writes some removals and tells whether there are more.
func (j *journal) writeSome(ctx context.Context, urgent bool) (more bool, err error) {
	most := smallBatch
	if j.mayBatch(urgent) {
		most = largeBatch
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

func (j *journal) write(ctx context.Context, batch [][]zfs.Op) error {
	var all []zfs.Op
	for _, ops := range batch {
		all = append(all, ops...)
	}
	if err := j.apply(ctx, all...); !errors.Is(err, zfs.ErrNotFound) {
		return err
	}
	// A dataset was destroyed behind our back: do the others without it.
	for _, ops := range batch {
		if err := j.apply(ctx, ops...); err != nil && !errors.Is(err, zfs.ErrNotFound) {
			return err
		}
	}
	return nil
}
