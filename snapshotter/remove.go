package snapshotter

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"github.com/zfstpl/zfstpl/snapshotter/internal/record"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// Remove removes a record from the index, and adds the removal from the pool to the
// journal. A cleanup destroys the dataset. Remove returns nil for a snapshot that does not
// exist, and FailedPrecondition for one that has children.
//
// Remove never waits. If another operation uses the snapshot, Remove hides the record, and
// that operation removes it before it unlocks the key, whether it succeeds or not. Callers
// no longer see the snapshot.
//
// After a crash before the journal is written the snapshot exists again. containerd's next
// garbage collection removes it.
func (s *Snapshotter) Remove(ctx context.Context, key string) error {
	_, err := detachIn(ctx, s, limiter{}, func(context.Context) (struct{}, error) {
		if err := s.index.hide(key); err != nil {
			return struct{}{}, err
		}
		unlock, ok := s.keys.LockOrDefer(key, func() { s.remove(key) })
		if ok {
			s.remove(key)
			unlock()
		}
		return struct{}{}, nil
	})
	return err
}

// errRemoved cancels an operation on a snapshot that a Remove removes.
var errRemoved = fmt.Errorf("the snapshot was removed during the operation: %w", errdefs.ErrNotFound)

// hide hides the record of key until remove removes it: it is not visible and cannot become
// a parent. It cancels an operation in untilRemoved. It returns FailedPrecondition if the
// record has children.
func (x *index) hide(key string) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if n := x.children[key]; n > 0 && x.records[key] != nil {
		return fmt.Errorf("remove of %q: it is the parent of %d snapshots; remove these first: %w", key, n, errdefs.ErrFailedPrecondition)
	}
	x.hidden[key] = true
	if end := x.interrupts[key]; end != nil {
		end(errRemoved)
	}
	return nil
}

// untilRemoved returns a context that a Remove of key cancels with errRemoved. The caller
// holds the lock of key and calls stop before it unlocks it.
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

// remove removes the record of key, if there is one. The caller holds the lock of key and
// has hidden the record, so it has no children.
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
	ops := r.Clear()
	now := time.Now()
	switch t := r.template; {
	case r.Info.Kind == snapshots.KindActive:
		x.discard(r.Dataset, t)
		x.dropResidue(r.Dataset)
	case t.records > 0 || t.IsEmpty():
	case t.IsOpaque():
		t.idle = now // it expires at once
	default:
		t.idle = now
		ops = append(ops, zfs.Set(r.Dataset, record.LastUsedProperty, layout.FormatTime(now)))
	}
	s.journal.Append(ops)
}
