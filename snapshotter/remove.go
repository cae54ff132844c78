package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// Remove takes the record away, from the index at once and from the pool a
// moment later. Datasets are destroyed in Cleanup. Removing what is not there
// succeeds; removing what other snapshots stand on is FailedPrecondition.
//
// It never waits. Of a snapshot that another operation is working on it hides the
// record and leaves the removal to that operation, which carries it out before it lets
// go of the key: the snapshot is gone for callers from now on, however long the
// operation takes and whether it succeeds or not.
//
// A crash before the record has left the pool brings the snapshot back, and
// containerd's next garbage collection removes it again.
func (s *Snapshotter) Remove(ctx context.Context, key string) error {
	_, err := settleIn(ctx, s, class{}, func(context.Context) (struct{}, error) {
		if err := s.index.hide(key); err != nil {
			return struct{}{}, err
		}
		unlock, ok := s.keys.lockOrDefer(key, func() { s.remove(key) })
		if ok {
			s.remove(key)
			unlock()
		}
		return struct{}{}, nil
	})
	return err
}

// errRemoved ends an operation on a snapshot that a Remove came for meanwhile.
var errRemoved = fmt.Errorf("the snapshot was removed meanwhile: %w", errdefs.ErrNotFound)

// hide keeps the record of that key from being seen and stood on until remove takes it
// away. It fails where snapshots stand on it.
func (x *index) hide(key string) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if n := x.children[key]; n > 0 && x.records[key] != nil {
		return fmt.Errorf("remove of %q: %d snapshots stand on it: %w", key, n, errdefs.ErrFailedPrecondition)
	}
	x.hidden[key] = true
	if end := x.interrupts[key]; end != nil {
		end(errRemoved)
	}
	return nil
}

// untilRemoved returns a context that a Remove of key ends. The caller has the key's
// lock, and calls stop before it lets go of that.
func (x *index) untilRemoved(ctx context.Context, key string) (_ context.Context, stop func()) {
	ctx, end := context.WithCancelCause(ctx)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.interrupts[key] = end
	if x.hidden[key] {
		end(errRemoved)
	}
	return ctx, func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		delete(x.interrupts, key)
		end(nil)
	}
}

// remove takes a hidden record away, if there is one. The caller has the key's lock.
// Nothing stands on what is hidden: what would has to see it.
func (s *Snapshotter) remove(key string) {
	x := s.index
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.hidden, key)
	r := x.records[key]
	if r == nil {
		return
	}
	x.drop(r)
	ops := r.clear()
	now := time.Now()
	switch t := r.template; {
	case r.info.Kind == snapshots.KindActive:
		ops = append(ops, zfs.Set(r.dataset, propGarbage, stamp(now)))
		x.discard(r.dataset, t)
		x.dropResidue(r.dataset)
	case t.records > 0 || t.IsEmpty():
	case t.IsOpaque():
		t.idle = now
		ops = append(ops, zfs.Set(r.dataset, propGarbage, stamp(now)))
	default:
		t.idle = now
		ops = append(ops, zfs.Set(r.dataset, propLastUsed, stamp(now)))
	}
	s.queue.add(ops)
}

const (
	// removalDelay is how long a removal may wait for others to share its txg.
	removalDelay = 500 * time.Millisecond
	// removalBatch bounds how many removals are one channel program: the pool's
	// configuration lock is held while it runs.
	removalBatch = 50
	// politeBatch is what that is while somebody is at work: his next transaction
	// begins when theirs is over.
	politeBatch = 5
)

// removals are records that have left the index and not yet the pool.
type removals struct {
	mu      sync.Mutex
	pending [][]zfs.Op // one entry a removal, oldest first
	repairs int        // how many of them there are up to the last repair, see rollback.go
	held    int        // cleanups that are destroying what need not be written
	late    bool       // it was to be written, or marked, while it was held

	flushing sync.Mutex   // keeps batches in order: children before their parents
	wanted   atomic.Int32 // how many wait for that
	apply    func(context.Context, ...zfs.Op) error
	mark     func(context.Context) error // makes the base say what is owed
	flushNow func(urgent bool) bool      // whether the work of others counts less
	wake     chan struct{}
	quit     chan struct{}
	done     chan struct{}
}

func (q *removals) start(s *Snapshotter) {
	q.apply = s.pool.Apply
	q.mark = func(ctx context.Context) error {
		s.background.notify() // what made the mark another is news to it too
		return s.updateMark(ctx, "")
	}
	q.flushNow = s.mayBatch
	q.quit, q.done = make(chan struct{}), make(chan struct{})
	q.poke() // for what recovery found to be written
	go q.run()
}

// stop writes what is pending and ends the goroutine.
func (q *removals) stop() error {
	close(q.quit)
	<-q.done
	return q.flushPaced(context.Background(), true)
}

func (q *removals) add(ops []zfs.Op) {
	q.mu.Lock()
	q.pending = append(q.pending, ops)
	q.mu.Unlock()
	q.poke()
}

// repair is add for ops that must be in the pool before anything else is changed
// about their datasets; see catchUp.
func (q *removals) repair(ops []zfs.Op) {
	q.mu.Lock()
	q.pending = append(q.pending, ops)
	q.repairs = len(q.pending)
	q.mu.Unlock()
	q.poke()
}

// barrier writes what is pending if there is a repair among it. Whoever is about
// to change a dataset that is there already comes here first, or the repair would
// undo his work.
func (q *removals) barrier(ctx context.Context) error {
	q.mu.Lock()
	repairs := q.repairs
	q.mu.Unlock()
	if repairs == 0 {
		return nil
	}
	return q.flushPaced(ctx, true)
}

// destroyAndSkip runs destroy, while nothing is written, and forgets the removals of
// the datasets that it destroyed.
//
// If there are any of templates that are to be destroyed, all are written before. A
// template loses its snapshot first: with a record it would then look as if a stranger
// had taken that, and the next start would leave it alone, and all it stands on. But
// where there is no room to write them, room has to be made first.
func (q *removals) destroyAndSkip(ctx context.Context, urgent bool, template func(dataset string) bool, destroy func() (gone []string, err error)) error {
	defer q.turn()()
	if q.has(template) {
		if err := q.writeAll(ctx, urgent); err != nil && !outOfSpace(err) {
			return err
		}
	}
	names, err := destroy()
	gone := make(map[string]bool, len(names))
	for _, name := range names {
		gone[name] = true
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.repairs == 0 {
		q.pending = slices.DeleteFunc(q.pending, func(ops []zfs.Op) bool { return gone[ops[0].Dataset()] })
	}
	return err
}

// holdBack keeps what is pending from being written by itself, until what it answers
// is called.
func (q *removals) holdBack() (release func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.held++
	return func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		if q.held--; q.late || len(q.pending) > 0 {
			q.late = false
			q.poke()
		}
	}
}

func (q *removals) isEnding() bool {
	select {
	case <-q.quit:
		return true
	default:
		return false
	}
}

func (q *removals) isHeldBack() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.held > 0
}

// deferIfPaused tells whether it is held back, and then has it poked when that is over.
func (q *removals) deferIfPaused() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.late = q.late || q.held > 0
	return q.held > 0
}

func (q *removals) poke() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *removals) run() {
	defer close(q.done)
	again := time.NewTimer(maxBackoff) // one, however often it fails
	defer again.Stop()
	again.Stop()
	var pause time.Duration // before the next attempt, where the last one failed
	for {
		select {
		case <-q.quit:
			return
		case <-q.wake:
		case <-again.C:
		}
		select {
		case <-q.quit:
			return
		case <-time.After(removalDelay):
		}
		err := q.flushInBackground(context.Background())
		if err == nil && q.deferIfPaused() {
			continue // it will be poked
		}
		message := "removals could not be written to the pool: they are tried again, and with the next one"
		if err == nil {
			message = "the base could not be marked as owed a cleanup: it is tried again, and with the next removal"
			err = q.mark(context.Background())
		}
		if err == nil {
			pause = 0
			continue
		}
		pause = min(max(2*pause, minBackoff), maxBackoff)
		log.L.WithError(err).WithField("again", pause).WithField("pending", q.length()).Warn(message)
		again.Reset(pause)
	}
}

func (q *removals) empty() bool { return q.length() == 0 }

func (q *removals) length() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.pending)
}

// flush writes pending removals, oldest first. Those of datasets that are no
// longer there are done; any other failure keeps the batch and what is behind
// it for the next flush.
func (q *removals) flush(ctx context.Context) error { return q.flushPaced(ctx, false) }

// flushPaced is flush. If urgent is set, it writes large batches also while operations
// write.
func (q *removals) flushPaced(ctx context.Context, urgent bool) error {
	if q.empty() {
		return nil
	}
	defer q.turn()()
	return q.writeAll(ctx, urgent)
}

// turn waits for the turn of whoever waits for it to end, and answers what ends it.
func (q *removals) turn() (end func()) {
	q.wanted.Add(1)
	q.flushing.Lock()
	q.wanted.Add(-1)
	return q.flushing.Unlock
}

// flushInBackground is a flush that nobody waits for. It leaves off when somebody wants the
// turn, and when a cleanup begins, which may make it needless.
func (q *removals) flushInBackground(ctx context.Context) error {
	if q.empty() || q.isHeldBack() {
		return nil
	}
	q.flushing.Lock()
	defer q.flushing.Unlock()
	for !q.isHeldBack() && !q.isEnding() {
		if q.wanted.Load() > 0 {
			q.poke() // who comes now may leave some
			return nil
		}
		if more, err := q.writeSome(ctx, false); !more || err != nil {
			return err
		}
	}
	return nil
}

// has tells whether a removal is pending of a dataset of which is says so.
func (q *removals) has(is func(dataset string) bool) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.ContainsFunc(q.pending, func(ops []zfs.Op) bool { return is(ops[0].Dataset()) })
}

// writeAll is flush for who has the turn.
func (q *removals) writeAll(ctx context.Context, urgent bool) error {
	for {
		if more, err := q.writeSome(ctx, urgent); !more || err != nil {
			return err
		}
	}
}

// writeSome writes some removals and tells whether there are more.
func (q *removals) writeSome(ctx context.Context, urgent bool) (more bool, err error) {
	most := politeBatch
	if q.flushNow(urgent) {
		most = removalBatch
	}
	q.mu.Lock()
	batch := q.pending[:min(len(q.pending), most)]
	q.mu.Unlock()
	if len(batch) == 0 {
		return false, nil
	}
	if err := q.write(ctx, batch); err != nil {
		return true, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.pending = q.pending[len(batch):]
	q.repairs = max(0, q.repairs-len(batch))
	return len(q.pending) > 0, nil
}

func (q *removals) write(ctx context.Context, batch [][]zfs.Op) error {
	var all []zfs.Op
	for _, ops := range batch {
		all = append(all, ops...)
	}
	if err := q.apply(ctx, all...); !errors.Is(err, zfs.ErrNotFound) {
		return err
	}
	// A dataset was destroyed behind our back: do the others without it.
	for _, ops := range batch {
		if err := q.apply(ctx, ops...); err != nil && !errors.Is(err, zfs.ErrNotFound) {
			return err
		}
	}
	return nil
}
