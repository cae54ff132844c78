package reaper

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/containerd/log"

	"github.com/zfstpl/zfstpl/snapshotter/errkind"
	"github.com/zfstpl/zfstpl/snapshotter/inspect"
	"github.com/zfstpl/zfstpl/snapshotter/space"
)

// PressureInterval is the minimum interval between pressure checks. ZFS's own figures are
// up to that old.
const PressureInterval = 5 * time.Second

// PressureDelay is how long after the operation that causes it a pressure check begins. A
// check asks for the space of several datasets: the operation needs the processors first.
const PressureDelay = time.Second

// RelievePressureIfDue makes the background goroutine check for pressure after PressureDelay,
// at most once per PressureInterval. It does not wait for evictions: there is space left, and
// an operation that runs out of it waits in Reclaim.
func (r *Reaper) RelievePressureIfDue() {
	if r.config.Pressure > 0 && r.cleanup.checkOpen() == nil && r.eviction.due(time.Now()) {
		time.AfterFunc(PressureDelay, r.background.requestPressureCheck)
	}
}

// due reports whether a pressure check is due, and records it.
func (e *evictionState) due(now time.Time) bool {
	last := e.lastCheck.Load()
	return now.Sub(time.Unix(0, last)) >= PressureInterval && e.lastCheck.CompareAndSwap(last, now.UnixNano())
}

// relievePressure evicts cached templates if a limit is above Config.Pressure, in every
// cleanup mode. The background goroutine calls it. It yields to a cleanup for which a
// caller waits, and which evicts too. It ends after the current batch if StopCleanup or
// Close stops it.
func (r *Reaper) relievePressure(ctx context.Context) {
	limits, err := inspect.Limits(ctx, r.pool, r.config.Base)
	if err == nil && slices.ContainsFunc(limits, func(l space.Limit) bool { return l.Over(r.config.Pressure) }) {
		err = r.runInBackground(ctx, func(ctx context.Context) error { return r.evictForPressure(ctx, limits) })
	}
	if err != nil && ctx.Err() == nil && !errors.Is(err, errStopped) && !errors.Is(err, errYielded) {
		log.G(ctx).WithError(err).Warn("failed to evict cached templates under pressure")
	}
}

// evictForPressure evicts cached templates by the configured policy. It leaves garbage to
// the cleanups of the configured mode. The caller holds r.cleanup.
func (r *Reaper) evictForPressure(ctx context.Context, limits []space.Limit) error {
	policy := r.config.policy()
	policy.CachedOnly = true
	plan, err := r.plan(ctx, nil, limits, policy)
	if err != nil {
		return err
	}
	if !plan.EvictsCached() {
		r.eviction.logProblems(ctx, plan.Problems)
		return nil
	}
	if err := r.Journal.Barrier(ctx); err != nil && !errkind.IsOutOfSpace(err) {
		return err
	}
	return r.evict(ctx, Options{}, policy, &evicted{})
}
