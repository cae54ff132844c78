package snapshotter

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/containerd/log"

	"github.com/zfstpl/zfstpl/snapshotter/errkind"
	"github.com/zfstpl/zfstpl/snapshotter/space"
)

// pressureInterval is the minimum interval between pressure checks. ZFS's own figures are
// up to that old.
const pressureInterval = 5 * time.Second

// Begin announces writes into a snapshot. The caller calls end after the writes. In mode
// CleanupBackground, cleanups wait meanwhile, for at most backgroundPatience. Under
// pressure, the background goroutine evicts cached templates.
func (s *Snapshotter) Begin(context.Context) (end func()) {
	end = s.activity.begin()
	s.relievePressureIfDue()
	return end
}

// relievePressureIfDue makes the background goroutine check for pressure, at most once per
// pressureInterval. It does not wait for evictions: there is space left, and an operation
// that runs out of it waits in reclaimSpace.
func (s *Snapshotter) relievePressureIfDue() {
	if s.config.Pressure > 0 && s.checkOpen() == nil && s.eviction.due(time.Now()) {
		s.background.requestPressureCheck()
	}
}

// due reports whether a pressure check is due, and records it.
func (e *evictionState) due(now time.Time) bool {
	last := e.lastCheck.Load()
	return now.Sub(time.Unix(0, last)) >= pressureInterval && e.lastCheck.CompareAndSwap(last, now.UnixNano())
}

// relievePressure evicts cached templates if a limit is above Config.Pressure, in every
// cleanup mode. The background goroutine calls it. It yields to a cleanup for which a
// caller waits, and which evicts too. It ends after the current batch if StopCleanup or
// Close stops it.
func (s *Snapshotter) relievePressure(ctx context.Context) {
	limits, err := Limits(ctx, s.pool, s.config.Base)
	if err == nil && slices.ContainsFunc(limits, func(l space.Limit) bool { return l.Over(s.config.Pressure) }) {
		err = s.runInBackground(ctx, func(ctx context.Context) error { return s.evictForPressure(ctx, limits) })
	}
	if err != nil && ctx.Err() == nil && !errors.Is(err, errStopped) && !errors.Is(err, errYielded) {
		log.G(ctx).WithError(err).Warn("failed to evict cached templates under pressure")
	}
}

// evictForPressure evicts cached templates by the configured policy. It leaves garbage to
// the cleanups of the configured mode. The caller holds s.cleanup.
func (s *Snapshotter) evictForPressure(ctx context.Context, limits []space.Limit) error {
	if err := s.measureCached(ctx); err != nil {
		return err
	}
	policy := s.config.policy()
	policy.CachedOnly = true
	if plan := space.PlanEvictions(s.nodesExcept(nil, time.Now()), limits, policy, time.Now()); !plan.EvictsCached() {
		s.eviction.logProblems(ctx, plan.Problems)
		return nil
	}
	if err := s.journal.Barrier(ctx); err != nil && !errkind.IsOutOfSpace(err) {
		return err
	}
	_, err := s.evict(ctx, cleanupOptions{}, policy)
	return err
}
