package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/log"
)

// CleanupMode says when what nobody needs is destroyed. When there is no room for
// something that is to be written it is destroyed then, whatever the mode.
type CleanupMode string

// The modes.
const (
	// CleanupGC: when containerd says so, after its garbage collection.
	CleanupGC CleanupMode = "gc"
	// CleanupBackground: when nothing else is done.
	CleanupBackground CleanupMode = "background"
	// CleanupManual: when somebody calls Clean.
	CleanupManual CleanupMode = "manual"
)

// Check refuses a word that is no mode.
func (m CleanupMode) Check() error {
	switch m.orDefault() {
	case CleanupGC, CleanupBackground, CleanupManual:
		return nil
	}
	return fmt.Errorf("%q is none of %s, %s, %s", string(m), CleanupGC, CleanupBackground, CleanupManual)
}

func (m CleanupMode) orDefault() CleanupMode {
	if m == "" {
		return CleanupGC
	}
	return m
}

const (
	// backgroundQuiet is how long nobody may have written anything when a cleanup
	// begins in the background: a pull makes pauses between its layers.
	backgroundQuiet = 10 * time.Second
	// backgroundPatience is how long such a cleanup waits, at most, on a machine
	// that is never quiet.
	backgroundPatience = 10 * time.Minute
)

// background runs cleanups that nobody waits for: in every mode but the manual one
// when a dataset that could not be destroyed is to be tried again, so that its space
// comes back without waiting for containerd's next garbage collection; and in the
// background mode all of them. In every mode it evicts under pressure.
type background struct {
	wake chan struct{} // what there is to do may have changed
	quit context.CancelFunc
	done chan struct{}

	mu            sync.Mutex
	paused        bool      // until somebody asks for a cleanup
	requestedAt   time.Time // when somebody first did; zero when there was one since
	checkPressure bool      // it is to be looked how full the pool is
}

// start begins; ctx has what the log needs.
func (b *background) start(ctx context.Context, s *Snapshotter) {
	ctx, b.quit = context.WithCancel(ctx)
	b.done = make(chan struct{})
	s.activity.begin()() // whoever starts us begins to work now
	go b.run(ctx, s)
}

// stop ends the goroutine, and the cleanup that it runs.
func (b *background) stop() {
	if b.quit != nil {
		b.quit()
		<-b.done
	}
}

// poke makes run look again at what there is to do. It never waits.
func (b *background) notify() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

func (b *background) pause() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.paused = true
}

// ask notes that somebody wants a cleanup.
func (b *background) requestCleanup() {
	b.mu.Lock()
	b.paused = false
	if b.requestedAt.IsZero() {
		b.requestedAt = time.Now()
	}
	b.mu.Unlock()
	b.notify()
}

// press has run look how full the pool is. It never waits.
func (b *background) requestPressureCheck() {
	b.mu.Lock()
	b.checkPressure = true
	b.mu.Unlock()
	b.notify()
}

// takePress reports whether it is to be looked now, and forgets it. Nothing is evicted
// while cleanups are stopped.
func (b *background) takePressureCheck() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	check := b.checkPressure && !b.paused
	b.checkPressure = false
	return check
}

// satisfied notes that there was one.
func (b *background) cleanupDone() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.requestedAt = time.Time{}
}

// wanted answers since when somebody wants a cleanup, zero for nobody, and
// whether none is to begin all the same.
func (b *background) requested() (since time.Time, paused bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.requestedAt, b.paused
}

func (b *background) run(ctx context.Context, s *Snapshotter) {
	defer close(b.done)
	timer := time.NewTimer(maxBackoff)
	defer timer.Stop()
	pause := minBackoff // at least, between two cleanups
	notBefore := time.Now().Add(pause)
	for {
		if next, ok := s.nextCleanup(time.Now()); ok {
			timer.Reset(max(time.Until(next), time.Until(notBefore)))
		} else {
			timer.Stop()
		}
		select {
		case <-ctx.Done():
			return
		case <-b.wake:
			if b.takePressureCheck() {
				s.relievePressure(ctx)
			}
			continue
		case <-timer.C:
		}
		if next, ok := s.nextCleanup(time.Now()); !ok || time.Until(next) > 0 {
			continue
		}
		err := s.cleanInBackground(ctx)
		if err == nil || ctx.Err() != nil || errors.Is(err, errStopped) || errors.Is(err, errYielded) {
			pause = minBackoff
		} else {
			pause = min(2*pause, maxBackoff)
			log.G(ctx).WithError(err).WithField("again", pause).Warn("a cleanup could not be done")
		}
		notBefore = time.Now().Add(pause)
	}
}

// nextCleanup answers when a cleanup is to begin by itself, if one is.
func (s *Snapshotter) nextCleanup(now time.Time) (time.Time, bool) {
	since, paused := s.background.requested()
	switch s.config.Cleanup.orDefault() {
	case CleanupGC:
		if paused {
			return time.Time{}, false
		}
		return s.index.nextRetry(s.config.CacheKeep)
	case CleanupManual:
		return time.Time{}, false
	}
	if garbage, ok := s.index.nextDestroy(s.config.CacheKeep, now); ok {
		since = earlier(since, garbage)
	}
	if since.IsZero() || paused {
		return time.Time{}, false
	}
	when := earlier(s.activity.quiet(backgroundQuiet, now), since.Add(backgroundPatience))
	if when.Before(since) {
		when = since
	}
	return when, true
}

// earlier answers the earlier of two times, of which a zero one does not count.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// cleanBehind is a cleanup that nobody waits for: it makes way for one that
// somebody does wait for.
func (s *Snapshotter) cleanInBackground(ctx context.Context) error {
	if s.config.Cleanup == CleanupBackground {
		ctx = withIdle(ctx)
	}
	return s.runInBackground(ctx, s.cleanLocked)
}

// behind does the work of a cleanup that no caller waits for, unless another is under
// way. It returns why do ended where others ended it.
func (s *Snapshotter) runInBackground(ctx context.Context, do func(context.Context) error) error {
	release, ok := s.cleanup.tryAcquire()
	if !ok {
		return nil
	}
	defer release()
	ctx = s.cleanup.cancelable(ctx, true)
	if _, paused := s.background.requested(); paused { // since it was decided
		return errStopped
	}
	return endReason(ctx, do(ctx))
}
