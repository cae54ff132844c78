package snapshotter

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/containerd/log"

	"github.com/zfstpl/zfstpl/snapshotter/space"
)

// gaugeFresh is how often, at most, it is looked how full the pool is before
// something is written: ZFS's own figures are as old.
const pressureInterval = 5 * time.Second

// Begin is called before something is written into a snapshot, and what it returns
// when that is over: no cleanup begins in the background meanwhile. Where there is
// little room, templates that no record names are evicted beside it.
func (s *Snapshotter) Begin(context.Context) (end func()) {
	end = s.activity.begin()
	s.relievePressureIfDue()
	return end
}

// lookForPressure has the background goroutine look how full the pool is and, above
// Config.Pressure, evict. It never waits: there is room left to write into, and what
// finds none waits in makeRoom.
func (s *Snapshotter) relievePressureIfDue() {
	if s.config.Pressure > 0 && s.usable() == nil && s.eviction.due(time.Now()) {
		s.background.requestPressureCheck()
	}
}

// due reports whether it is time to look again.
func (e *evictionState) due(now time.Time) bool {
	last := e.lastCheck.Load()
	return now.Sub(time.Unix(0, last)) >= pressureInterval && e.lastCheck.CompareAndSwap(last, now.UnixNano())
}

// relieve is what the background goroutine does under pressure, in every mode. It makes
// way for a cleanup that a caller waits for, which ends with a sweep itself, and ends
// within a batch when StopCleanup or Close ends it.
func (s *Snapshotter) relievePressure(ctx context.Context) {
	limits, err := Limits(ctx, s.pool, s.config.Base)
	if err == nil && slices.ContainsFunc(limits, func(l space.Limit) bool { return l.Over(s.config.Pressure) }) {
		err = s.runInBackground(ctx, func(ctx context.Context) error { return s.evictForPressure(ctx, limits) })
	}
	if err != nil && ctx.Err() == nil && !errors.Is(err, errStopped) && !errors.Is(err, errYielded) {
		log.G(ctx).WithError(err).Warn("cached layers could not be evicted, though there is little room")
	}
}

// ease evicts templates where that helps, and nothing else: garbage goes when
// cleanup.mode says. The caller has the turn.
func (s *Snapshotter) evictForPressure(ctx context.Context, limits []space.Limit) error {
	if err := s.measureCached(ctx); err != nil {
		return err
	}
	policy := s.config.policy()
	policy.CachedOnly = true
	if plan := space.PlanEvictions(s.nodesExcept(ctx, nil), limits, policy, time.Now()); !plan.EvictsCached() {
		s.eviction.logProblems(ctx, plan.Problems)
		return nil
	}
	if err := s.queue.catchUp(ctx); err != nil && !outOfSpace(err) {
		return err
	}
	_, err := s.evict(ctx, policy)
	return err
}
