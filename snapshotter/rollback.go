package snapshotter

import (
	"context"
	"errors"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"

	"github.com/zfstpl/zfstpl/snapshotter/errkind"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// A command that is killed, or a call that a signal ends, may have done all,
// nothing or a first part of its list, and does not say which. The caller is
// told that his operation failed, so what there may be of it is taken back, by
// steps that are right whatever there is: to remove a property that is not there
// and to set one that is there succeed. They wait in the queue of removals, which
// the pool gets in order and, where it fails, again.

// ambiguous tells whether what a failed list of ops left is not known: the pool
// gave no reason, or a second one for not having taken back a first part.
func ambiguous(err error) bool {
	var several interface{ Unwrap() []error }
	return err != nil && (errkind.Of(err) == nil || errors.As(err, &several) && len(several.Unwrap()) > 1)
}

// rollBackCreate takes back what there may be of a new record and, under an active
// one, of its clone.
func (s *Snapshotter) rollBackCreate(r *record) {
	ops := r.clear()
	if r.info.Kind == snapshots.KindActive {
		// A clone that is not there is nothing to mark, and nothing to destroy.
		ops = append(ops, zfs.Set(r.dataset, propGarbage, stamp(r.info.Created)))
		s.index.mu.Lock()
		s.index.discard(r.dataset, r.template)
		s.index.mu.Unlock()
	}
	s.journal.repair(ops)
}

// rollBackUpdate takes back what there may be of an update: the old record, which may
// be gone, is written again before the new one goes.
func (s *Snapshotter) rollBackUpdate(old, updated *record) error {
	again, err := old.rewrite()
	if err != nil {
		return err
	}
	s.journal.repair(append(again, updated.clear()...))
	return nil
}

// rollBackCommit takes back what there may be of a commit: the active snapshot is whole
// again before the committed one goes, so whatever stops the pool in between, one of
// them is there. A template that the commit made is left, without a record, and what is
// written until then is the active snapshot's: the next start takes it back or, where it
// is a clone still, the next commit, or the end of the snapshot.
func (s *Snapshotter) rollBackCommit(ctx context.Context, r, active *record) error {
	if err := s.queueRestore(active); err != nil {
		return err
	}
	s.journal.repair(r.clear())
	s.flushRepairs(ctx)
	return nil
}

// rollBackDiscard gives a runtime its record again, and takes the trash mark away.
func (s *Snapshotter) rollBackDiscard(ctx context.Context, active *record) error {
	if err := s.queueRestore(active); err != nil {
		return err
	}
	s.flushRepairs(ctx)
	return nil
}

func (s *Snapshotter) queueRestore(active *record) error {
	again, err := active.rewrite()
	if err != nil {
		return err
	}
	s.journal.repair(append(again, zfs.Inherit(active.dataset, propGarbage)))
	return nil
}

// repairTimeout is how long a caller waits, at most, until the pool knows that his
// operation failed.
const repairTimeout = 5 * time.Second

// flushRepairs writes repairs before the caller hears that his operation failed: he goes
// on writing into a snapshot that, should the machine die before the pool knows of
// it, would go at the next start. Where it cannot be done now the queue goes on.
func (s *Snapshotter) flushRepairs(ctx context.Context) {
	told := make(chan struct{})
	go func() {
		defer close(told)
		_ = s.journal.barrier(context.WithoutCancel(ctx)) // the queue tells of it when it cannot either
	}()
	select {
	case <-told:
	case <-time.After(repairTimeout): // a call that has begun heeds no context
	}
}

// rewrite are the ops that write a record which may be in the pool already.
func (r *record) rewrite() ([]zfs.Op, error) {
	same := *r // set notes the names of the properties, and records do not change
	return same.set()
}
