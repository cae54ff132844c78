package reaper

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/zfstpl/zfstpl/snapshotter/internal/backoff"
	"github.com/zfstpl/zfstpl/snapshotter/space"

	"github.com/containerd/log"
)

// Mode selects when cleanups run. An operation that runs out of space reclaims it
// in every mode.
type Mode string

const (
	// ModeGC runs a cleanup in Cleanup, which containerd calls after each garbage
	// collection.
	ModeGC Mode = "gc"
	// ModeBackground runs cleanups while no operation writes.
	ModeBackground Mode = "background"
	// ModeManual runs cleanups only in Clean.
	ModeManual Mode = "manual"
)

// Check returns an error if m is not a mode.
func (m Mode) Check() error {
	switch m {
	case ModeGC, ModeBackground, ModeManual:
		return nil
	}
	return fmt.Errorf("%q is not one of %s, %s, %s", string(m), ModeGC, ModeBackground, ModeManual)
}

const (
	// BackgroundQuiet is how long no operation may have written before a background
	// cleanup begins. It is longer than the pauses between the layers of a pull.
	BackgroundQuiet = 10 * time.Second
	// BackgroundPatience is how long a background cleanup waits at most for
	// BackgroundQuiet.
	BackgroundPatience = 10 * time.Minute
)

// background is the goroutine that runs cleanups for which no caller waits. In mode
// ModeGC it retries stuck datasets, so that their space is freed without waiting for
// containerd's next garbage collection. In mode ModeBackground it runs all cleanups.
// In every mode it evicts under pressure.
type background struct {
	wake chan struct{} // of capacity 1; receives when nextCleanup may have changed
	quit context.CancelFunc
	done chan struct{}

	mu            sync.Mutex
	paused        bool      // until the next request for a cleanup
	requestedAt   time.Time // first request since the last cleanup; zero if none
	checkPressure bool      // whether a pressure check is requested
}

// start starts the goroutine. ctx carries the logger.
func (b *background) start(ctx context.Context, r *Reaper) {
	ctx, b.quit = context.WithCancel(ctx)
	b.done = make(chan struct{})
	r.activity.begin()() // counts the start itself as activity
	go b.run(ctx, r)
}

// stop cancels the goroutine with its cleanup, and waits until it has ended.
func (b *background) stop() {
	if b.quit != nil {
		b.quit()
		<-b.done
	}
}

// notify makes run evaluate again what to do. It never blocks.
func (b *background) notify() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// pause prevents cleanups until requestCleanup.
func (b *background) pause() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.paused = true
}

// requestCleanup records a request for a cleanup, and ends a pause.
func (b *background) requestCleanup() {
	b.mu.Lock()
	b.paused = false
	if b.requestedAt.IsZero() {
		b.requestedAt = time.Now()
	}
	b.mu.Unlock()
	b.notify()
}

// requestPressureCheck makes run check for pressure. It never blocks.
func (b *background) requestPressureCheck() {
	b.mu.Lock()
	b.checkPressure = true
	b.mu.Unlock()
	b.notify()
}

// takePressureCheck clears the request for a pressure check, and reports whether there
// was one. It reports false during a pause.
func (b *background) takePressureCheck() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	check := b.checkPressure && !b.paused
	b.checkPressure = false
	return check
}

// cleanupDone clears the request for a cleanup.
func (b *background) cleanupDone() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.requestedAt = time.Time{}
}

// requested returns the time of the first request for a cleanup, zero if there is none,
// and whether cleanups are paused.
func (b *background) requested() (since time.Time, paused bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.requestedAt, b.paused
}

func (b *background) run(ctx context.Context, r *Reaper) {
	defer close(b.done)
	timer := time.NewTimer(backoff.Max)
	defer timer.Stop()
	pause := backoff.Min // minimum between two cleanups
	notBefore := time.Now().Add(pause)
	for {
		if next, ok := r.nextCleanup(time.Now()); ok {
			timer.Reset(max(time.Until(next), time.Until(notBefore)))
		} else {
			timer.Stop()
		}
		select {
		case <-ctx.Done():
			return
		case <-b.wake:
			if b.takePressureCheck() {
				r.relievePressure(ctx)
			}
			continue
		case <-timer.C:
		}
		if next, ok := r.nextCleanup(time.Now()); !ok || time.Until(next) > 0 {
			continue
		}
		err := r.cleanInBackground(ctx)
		if err == nil || ctx.Err() != nil || errors.Is(err, errStopped) || errors.Is(err, errYielded) {
			pause = backoff.Min
		} else {
			pause = backoff.Next(pause)
			log.G(ctx).WithError(err).WithField("retry_in", pause).Warn("background cleanup failed")
		}
		notBefore = time.Now().Add(pause)
	}
}

// nextCleanup returns the time of the next background cleanup, and whether there is one.
func (r *Reaper) nextCleanup(now time.Time) (time.Time, bool) {
	since, paused := r.background.requested()
	if paused || r.config.Mode == ModeManual {
		return time.Time{}, false
	}
	plan := space.NewPlan(r.Index.PlanNodes(), nil, space.Policy{Keep: r.config.CacheKeep}, now)
	if r.config.Mode == ModeGC {
		return plan.NextRetry, !plan.NextRetry.IsZero()
	}
	if since = earlier(since, plan.Next); since.IsZero() {
		return time.Time{}, false
	}
	when := earlier(r.activity.quietAt(BackgroundQuiet, now), since.Add(BackgroundPatience))
	if when.Before(since) {
		when = since
	}
	return when, true
}

// earlier returns the earlier of two times. It ignores a zero time.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// cleanInBackground runs a cleanup that yields to those of callers.
func (r *Reaper) cleanInBackground(ctx context.Context) error {
	return r.runInBackground(ctx, func(ctx context.Context) error { return r.cleanLocked(ctx, Options{}) })
}

// runInBackground runs do under r.cleanup, with a context that stop and waiters cancel. It
// does nothing if another cleanup is running. It returns errStopped or errYielded if do
// failed after that.
func (r *Reaper) runInBackground(ctx context.Context, do func(context.Context) error) error {
	release, ok := r.cleanup.tryAcquire()
	if !ok {
		return nil
	}
	defer release()
	ctx = r.cleanup.cancelable(ctx, true)
	if _, paused := r.background.requested(); paused { // since nextCleanup
		return errStopped
	}
	return endReason(ctx, do(ctx))
}
