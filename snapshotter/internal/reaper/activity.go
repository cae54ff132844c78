package reaper

import (
	"sync"
	"time"
)

// activity records when operations write, so that a background cleanup can wait until
// none does.
type activity struct {
	mu     sync.Mutex
	active int
	last   time.Time
}

// begin records the begin of an operation, and end its end.
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

// isQuiet reports whether no operation has written for the period before now.
func (a *activity) isQuiet(period time.Duration, now time.Time) bool {
	return !a.quietAt(period, now).After(now)
}

// UntilQuiet returns how long it takes until no operation has written for a period, if none
// begins: the whole period while one runs.
func (r *Reaper) UntilQuiet(period time.Duration) time.Duration {
	now := time.Now()
	return r.activity.quietAt(period, now).Sub(now)
}

// quietAt returns the time at which no operation will have written for period, provided
// that none begins.
func (a *activity) quietAt(period time.Duration, now time.Time) time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.active > 0 {
		return now.Add(period)
	}
	if a.last.IsZero() {
		return now
	}
	return a.last.Add(period)
}
