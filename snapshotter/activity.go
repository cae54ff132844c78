package snapshotter

import (
	"sync"
	"time"
)

// activity knows when something was last written for somebody: a cleanup in the
// background waits until nobody does.
type activity struct {
	mu     sync.Mutex
	active int
	last   time.Time
}

func (a *activity) begin() (end func()) {
	a.mu.Lock()
	a.active++
	a.mu.Unlock()
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.active--
		a.last = time.Now()
	}
}

// isQuiet tells whether it has been quiet for so long.
func (a *activity) isQuiet(long time.Duration, now time.Time) bool {
	return !a.quiet(long, now).After(now)
}

// quiet answers when it will have been quiet for so long, if nothing comes.
func (a *activity) quiet(long time.Duration, now time.Time) time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.active > 0 {
		return now.Add(long)
	}
	if a.last.IsZero() {
		return now
	}
	return a.last.Add(long)
}
