package snapshotter

import (
	"context"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// applier applies ops to the pool.
type applier func(ctx context.Context, ops ...zfs.Op) error

// apply is the pool's Apply in WithReclaim.
func (s *Snapshotter) apply(ctx context.Context, ops ...zfs.Op) error {
	return s.reaper.WithReclaim(ctx, func() error { return s.pool.Apply(ctx, ops...) })
}

// barrier is the journal's barrier in WithReclaim.
func (s *Snapshotter) barrier(ctx context.Context) error {
	return s.reaper.WithReclaim(ctx, func() error { return s.journal.Barrier(ctx) })
}
