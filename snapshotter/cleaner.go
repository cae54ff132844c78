package snapshotter

import (
	"context"
	"time"

	"github.com/containerd/log"

	"github.com/zfstpl/zfstpl/snapshotter/errkind"
	"github.com/zfstpl/zfstpl/snapshotter/internal/reaper"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
)

// Cleanup implements snapshots.Cleaner: containerd calls it after each garbage
// collection. In mode CleanupGC it runs a cleanup. In the other modes it writes pending
// removals and notifies the background goroutine.
func (s *Snapshotter) Cleanup(ctx context.Context) error {
	return detachErr(ctx, s.gate, func(ctx context.Context) error {
		return s.reaper.Requested(ctx)
	})
}

// Clean runs a cleanup in every mode. It writes pending removals and destroys garbage
// and expired cached templates. Then it evicts cached templates that exceed a limit.
// A dataset that cannot be destroyed, because it is mounted or has a foreign snapshot,
// is not an error: the next cleanup tries it again.
//
// One cleanup runs at a time. If ctx is cancelled, Clean returns after the current batch
// of datasets. If StopCleanup is called, it does so with ErrAborted. The next cleanup
// destroys the rest. If report is not nil, Clean calls it with its progress.
func (s *Snapshotter) Clean(ctx context.Context, report func(reaper.Progress)) error {
	s.gate.closing.RLock()
	defer s.gate.closing.RUnlock()
	if err := s.gate.checkOpen(); err != nil {
		return err
	}
	return s.reaper.Explicit(ctx, report)
}

// StopCleanup stops the running cleanup and reports whether there was one. Until the
// next request for a cleanup, no background cleanup begins and nothing is evicted under
// pressure. StopCleanup does not stop a reclaim, because callers wait for it.
func (s *Snapshotter) StopCleanup() bool {
	return s.reaper.StopCleanup()
}

// Cleaner cleans up a base while no snapshotter has it open.
type Cleaner struct{ s *Snapshotter }

// Resume returns a cleaner that uses the cleanup list of the base, or nil if there is no
// valid list: then the caller uses New. mark is the base's mark. The caller holds the
// base's lock.
//
// The cleaner checks every dataset again before it destroys it.
func Resume(ctx context.Context, pool Pool, config Config, mark layout.CleanupMark) (*Cleaner, error) {
	list, err := reaper.ReadList(config.Root, mark.List)
	if err != nil {
		log.G(ctx).WithError(err).Debug("no valid cleanup list; listing the pool")
		return nil, nil
	}
	s, err := newSnapshotter(pool, config)
	if err != nil {
		return nil, err
	}
	s.index.Load(config.Base, list.Datasets, time.Now())
	if err := s.reaper.Resume(ctx, mark); err != nil {
		return nil, errkind.Wrap("cleanup", err)
	}
	s.journal.Start()
	close(s.ready.done) // nothing is made in advance
	return &Cleaner{s}, nil
}

// Clean runs a cleanup like Snapshotter.Clean.
func (c *Cleaner) Clean(ctx context.Context, report func(reaper.Progress)) error {
	return c.s.Clean(ctx, report)
}

// Close saves a cleanup list of the datasets that are left.
func (c *Cleaner) Close() error { return c.s.Close() }
