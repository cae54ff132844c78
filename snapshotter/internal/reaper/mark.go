package reaper

import (
	"context"
	"time"

	"github.com/zfstpl/zfstpl/snapshotter/errkind"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/space"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// MarkAfterFlush writes the cleanup mark after a flush of the journal. The time of the next
// cleanup may have changed too.
func (r *Reaper) MarkAfterFlush(ctx context.Context) error {
	r.background.notify()
	return r.updateMark(ctx, "")
}

// updateMark writes the base's cleanup mark from the index. While the journal's goroutine
// runs, only that calls it.
func (r *Reaper) updateMark(ctx context.Context, list string) error {
	now := time.Now()
	next := layout.CleanupMark{Due: r.due(now), List: list}
	if r.cleanupMark.IsDue(now) && next.IsDue(now) {
		next.Due = r.cleanupMark.Due // saves a write: a time in the past has no meaning
	}
	return r.writeMark(ctx, next)
}

// due returns the time from which a cleanup has something to destroy; zero for never. It
// ignores backoffs: an administrator's cleanup does too.
func (r *Reaper) due(now time.Time) time.Time {
	policy := space.Policy{Keep: r.config.CacheKeep, MaxBytes: r.config.CacheMaxBytes, Retry: true}
	plan := space.NewPlan(r.Index.PlanNodes(), nil, policy, now)
	// A cleanup measures templates that are not measured yet.
	if len(plan.Evict) > 0 || policy.MaxBytes > 0 && len(r.Index.Unmeasured()) > 0 {
		return now
	}
	return plan.Next
}

// writeMark writes a mark unless the base has it already.
func (r *Reaper) writeMark(ctx context.Context, next layout.CleanupMark) error {
	if r.cleanupMark.String() == next.String() && !r.cleanupMarkUnsure {
		return nil
	}
	r.cleanupMarkUnsure = true // a failed call may have written it
	if err := r.pool.Mark(ctx, r.config.Base.String(), layout.CleanupProperty, next.String()); err != nil {
		return err
	}
	r.cleanupMark, r.cleanupMarkUnsure = next, false
	return nil
}

// ReadMark reads the base's mark from a listing. Then it removes the list's hash from the
// mark: the saved cleanup list becomes invalid before anything else is changed.
func (r *Reaper) ReadMark(ctx context.Context, list []zfs.Dataset) error {
	for _, d := range list {
		if d.Name == r.config.Base.String() {
			r.cleanupMark = layout.ParseCleanupMark(d.Props[layout.CleanupProperty])
		}
	}
	return errkind.Wrap("open", r.writeMark(ctx, layout.CleanupMark{Due: r.cleanupMark.Due}))
}
