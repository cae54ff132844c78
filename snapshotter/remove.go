package snapshotter

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

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
	_, err := detachIn(ctx, s, limiter{}, func(context.Context) (struct{}, error) {
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
	s.journal.add(ops)
}
