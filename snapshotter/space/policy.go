package space

import "time"

// Forever is a Policy.Keep that never evicts a template for its age.
const Forever time.Duration = -1

// PressureMargin is how far below the threshold an eviction under pressure continues,
// in percentage points, so that the next layer does not exceed the threshold again.
const PressureMargin = 5

// Policy selects the cached templates to evict.
type Policy struct {
	// Keep is how long a template is kept after its last use. Zero keeps none.
	Keep time.Duration
	// MaxBytes bounds the space of all cached templates together. It does not count one that
	// could not be destroyed and waits for its Retry. Zero means no bound.
	MaxBytes uint64
	// Pressure is the percentage of a limit above which templates are evicted. Zero
	// means never.
	Pressure int
	// All evicts every cached template that can be destroyed.
	All bool
	// CachedOnly leaves garbage to the next cleanup.
	CachedOnly bool
	// Retry destroys also datasets whose Retry is in the future.
	Retry bool
}

// due returns the time from which a node is destroyed for its age, and false if it never is.
// Garbage is due at once, whatever the clock was when it became garbage.
func (p Policy) due(n Node, now time.Time) (at time.Time, ok bool) {
	switch {
	case n.Garbage && (n.Cached || !p.CachedOnly):
		at = n.Since
		if at.After(now) {
			at = now
		}
	case n.Cached && p.Keep != Forever:
		at = n.Since.Add(p.Keep)
	default:
		return at, false
	}
	if n.Retry.After(at) && !p.Retry {
		at = n.Retry
	}
	return at, true
}

// IsDue reports whether a node is destroyed for its age.
func (p Policy) IsDue(n Node, now time.Time) bool {
	at, ok := p.due(n, now)
	return ok && !at.After(now)
}

// mayEvict reports whether a node may be destroyed before it is due.
func (p Policy) mayEvict(n Node, now time.Time) bool {
	return n.Cached && (p.Retry || !n.Retry.After(now))
}
