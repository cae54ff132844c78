package snapshotter

import (
	"context"
	"errors"

	"github.com/zfstpl/zfstpl/snapshotter/errkind"
	"github.com/zfstpl/zfstpl/snapshotter/internal/index"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// applier applies ops to the pool.
type applier func(ctx context.Context, ops ...zfs.Op) error

// apply is the pool's Apply in WithReclaim.
func (s *Snapshotter) apply(ctx context.Context, ops ...zfs.Op) error {
	return s.reaper.WithReclaim(ctx, func() error { return s.pool.Apply(ctx, ops...) })
}

// change applies ops to existing datasets, after the journal's barrier. If the outcome is
// unknown, it calls rollBack.
func (s *Snapshotter) change(ctx context.Context, doing string, ops []zfs.Op, rollBack func() error) error {
	if err := s.barrier(ctx); err != nil {
		return errkind.Wrap(doing, err)
	}
	err := s.apply(ctx, ops...)
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

// barrier is the journal's barrier in WithReclaim.
func (s *Snapshotter) barrier(ctx context.Context) error {
	return s.reaper.WithReclaim(ctx, func() error { return s.journal.Barrier(ctx) })
}
