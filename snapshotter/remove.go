package snapshotter

import (
	"context"
	"time"
)

// Remove removes a record from the index. It adds an entry to the journal, which later removes
// the record from the pool. A cleanup destroys the dataset. Remove returns nil for a snapshot
// that does not exist, and FailedPrecondition for one that has children.
//
// Remove never waits. If another operation uses the snapshot, Remove only hides the record.
// The operation removes the hidden record before it unlocks the key, whether the operation
// succeeds or fails. In both cases callers do not see the snapshot after Remove returns.
//
// After a crash before the journal is written the snapshot exists again. containerd's next
// garbage collection removes it.
func (s *Snapshotter) Remove(ctx context.Context, key string) error {
	_, err := detachIn(ctx, s.gate, nil, func(context.Context) (struct{}, error) {
		if err := s.index.Hide(key); err != nil {
			return struct{}{}, err
		}
		unlock, ok := s.locks.keys.LockOrDefer(key, func() { s.remove(key) })
		if ok {
			s.remove(key)
			unlock()
		}
		return struct{}{}, nil
	})
	return err
}

// remove removes the record of key, if there is one. The caller holds the lock of key and
// has hidden the record, so it has no children.
func (s *Snapshotter) remove(key string) { s.index.Remove(key, time.Now(), s.journal.Append) }
