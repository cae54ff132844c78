package snapshotter

import (
	"context"
	"time"

	"github.com/zfstpl/zfstpl/snapshotter/errkind"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// markAfterFlush writes the cleanup mark after a flush of the journal. The time of the next
// cleanup may have changed too.
func (s *Snapshotter) markAfterFlush(ctx context.Context) error {
	s.background.notify()
	return s.updateMark(ctx, "")
}

// updateMark writes the base's cleanup mark from the index. While the journal's goroutine
// runs, only that calls it.
func (s *Snapshotter) updateMark(ctx context.Context, list string) error {
	now := time.Now()
	next := layout.CleanupMark{Due: s.index.Due(s.config.CacheKeep, s.config.CacheMaxBytes, now), List: list}
	if s.cleanupMark.IsDue(now) && next.IsDue(now) {
		next.Due = s.cleanupMark.Due // saves a write: a time in the past has no meaning
	}
	return s.writeMark(ctx, next)
}

// writeMark writes a mark unless the base has it already.
func (s *Snapshotter) writeMark(ctx context.Context, next layout.CleanupMark) error {
	if s.cleanupMark.String() == next.String() && !s.cleanupMarkUnsure {
		return nil
	}
	s.cleanupMarkUnsure = true // a failed call may have written it
	if err := s.pool.Mark(ctx, s.config.Base.String(), layout.CleanupProperty, next.String()); err != nil {
		return err
	}
	s.cleanupMark, s.cleanupMarkUnsure = next, false
	return nil
}

// readMark reads the base's mark from a listing. Then it removes the list's hash from the
// mark: the saved cleanup list becomes invalid before anything else is changed.
func (s *Snapshotter) readMark(ctx context.Context, list []zfs.Dataset) error {
	for _, d := range list {
		if d.Name == s.config.Base.String() {
			s.cleanupMark = layout.ParseCleanupMark(d.Props[layout.CleanupProperty])
		}
	}
	return errkind.Wrap("open", s.writeMark(ctx, layout.CleanupMark{Due: s.cleanupMark.Due}))
}
