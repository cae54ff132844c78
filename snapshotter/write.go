package snapshotter

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"

	"github.com/zfstpl/zfstpl/snapshotter/errkind"
	"github.com/zfstpl/zfstpl/snapshotter/internal/index"
	"github.com/zfstpl/zfstpl/snapshotter/internal/journal"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// apply is the pool's Apply in WithReclaim.
func (s *Snapshotter) apply(ctx context.Context, ops ...zfs.Op) error {
	return s.reaper.WithReclaim(ctx, func() error { return s.pool.Apply(ctx, ops...) })
}

// barrier is the journal's barrier in WithReclaim.
func (s *Snapshotter) barrier(ctx context.Context) error {
	return s.reaper.WithReclaim(ctx, func() error { return s.journal.Barrier(ctx) })
}

// write changes properties of existing datasets: in the log, or else in a transaction of apply.
func (s *Snapshotter) write(ctx context.Context, ops []zfs.Op, apply func(context.Context, ...zfs.Op) error) error {
	logErr := s.journal.Commit(ops)
	if logErr == nil {
		return nil
	}
	var datasets []string
	for _, op := range ops {
		if !slices.Contains(datasets, op.Dataset()) {
			datasets = append(datasets, op.Dataset())
		}
	}
	err := s.journal.Include(datasets, func(content journal.Included) error {
		return apply(ctx, slices.Concat(content.Before(), ops)...)
	})
	if err != nil && errors.Is(logErr, journal.ErrMaybeLogged) {
		return errors.Join(err, logErr) // the outcome is unknown
	}
	return err
}

// writeRecord writes a new record, with the clone on which it is if the record's dataset does
// not exist. If the outcome is unknown, it rolls back.
func (s *Snapshotter) writeRecord(ctx context.Context, r *index.Entry, clone []zfs.Op, apply func(context.Context, ...zfs.Op) error) error {
	set, err := r.Set()
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(clone) > 0 {
		err = apply(ctx, append(clone, set...)...)
	} else {
		err = s.write(ctx, set, apply)
	}
	if errkind.IsAmbiguous(err) {
		s.rollBackCreate(r)
	}
	return err
}

// addRecord is writeRecord for a template that may have no record. Another program may have
// destroyed it, which the log does not notice.
func (s *Snapshotter) addRecord(ctx context.Context, r *index.Entry, apply func(context.Context, ...zfs.Op) error) error {
	if err := s.checkExists(ctx, r.Dataset); err != nil {
		return err
	}
	return s.writeRecord(ctx, r, nil, apply)
}

// isMissing reports whether checkExists returns an error.
func (s *Snapshotter) isMissing(ctx context.Context, dataset string) bool {
	return s.checkExists(ctx, dataset) != nil
}

// checkExists returns zfs.ErrNotFound if a dataset to which the log is about to refer does not
// exist. Without a log the transaction returns it.
func (s *Snapshotter) checkExists(ctx context.Context, dataset string) error {
	if !s.journal.HasLog() {
		return nil
	}
	if _, err := s.pool.Space(ctx, dataset); errors.Is(err, zfs.ErrNotFound) {
		return err
	}
	return nil
}

// change applies ops to existing datasets, after the journal's barrier. If the outcome is
// unknown, it calls rollBack.
func (s *Snapshotter) change(ctx context.Context, doing string, ops []zfs.Op, rollBack func() error) error {
	if err := s.barrier(ctx); err != nil {
		return errkind.Wrap(doing, err)
	}
	err := s.write(ctx, ops, s.apply)
	if errkind.IsAmbiguous(err) {
		err = errors.Join(err, rollBack())
	}
	return errkind.Wrap(doing, err)
}

// replaceRecord writes the record r, which has a new ID, before it removes the record old.
// After a crash in between, one of them is complete, and the one with the greater sequence
// number is valid.
func (s *Snapshotter) replaceRecord(ctx context.Context, doing string, old, r *index.Entry) error {
	ops, err := r.Set()
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.change(ctx, doing, append(ops, old.Clear()...), func() error { return s.rollBackUpdate(old, r) })
}

// A killed command or an interrupted call may have applied all, none or the first ops of
// its list, and does not report which. The operation fails, so it is rolled back with
// idempotent steps: removing a property that does not exist succeeds, and so does setting
// a property again. The steps are part of the journal, which writes them in order and
// retries a failed write.

// rollBackCreate removes what may exist of a new record and, for an active one, of its
// clone.
func (s *Snapshotter) rollBackCreate(r *index.Entry) {
	if r.Info.Kind == snapshots.KindActive {
		// If the clone does not exist, the destroy has no effect.
		s.index.AddGarbage(r.Dataset, r.Template, time.Now())
	}
	s.journal.AppendRepair(r.Clear())
}

// rollBackUpdate removes what may exist of an update. It writes the old record again
// before it removes the new one.
func (s *Snapshotter) rollBackUpdate(old, updated *index.Entry) error {
	again, err := old.Rewrite()
	if err != nil {
		return err
	}
	s.journal.AppendRepair(append(again, updated.Clear()...))
	return nil
}

// repairTimeout limits how long a failed operation waits until its rollback is in the
// pool.
const repairTimeout = 5 * time.Second

// rollBackDiscard restores the record of a runtime. It waits until the pool has the record,
// because the caller continues to write to the snapshot: if the machine crashed before, the
// next start would destroy that snapshot. If the write fails or takes longer than
// repairTimeout, the journal tries it again.
func (s *Snapshotter) rollBackDiscard(ctx context.Context, active *index.Entry) error {
	again, err := active.Rewrite()
	if err != nil {
		return err
	}
	s.journal.AppendRepair(again)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.journal.Barrier(context.WithoutCancel(ctx)) // the journal logs its own failures
	}()
	select {
	case <-done:
	case <-time.After(repairTimeout): // a call in the kernel ignores its context
	}
	return nil
}
