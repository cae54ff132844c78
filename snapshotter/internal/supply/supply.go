// Package supply decides how many ready runtimes a template has. It is pure: it knows templates
// by name only, no pool, no goroutine and no clock.
package supply

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

const (
	// Few is how many ready runtimes a template has of which a container was started.
	Few = 2
	// Window is the time in which the starts of a burst are counted. After a burst a template
	// has as many ready runtimes as containers were started in it.
	Window = time.Minute
	// Unused is how long after the last start a template has ready runtimes.
	Unused = 10 * time.Minute
)

// Starts has the times at which containers of each template were started, the last one last.
type Starts map[string][]time.Time

// Add adds a start.
func (s Starts) Add(template string, now time.Time) {
	s[template] = append(s.recent(template, now.Add(-Window)), now)
}

// recent returns the starts of a template after a time, and the last one in any case.
func (s Starts) recent(template string, after time.Time) []time.Time {
	all := s[template]
	i := slices.IndexFunc(all, func(t time.Time) bool { return t.After(after) })
	if i < 0 {
		i = max(0, len(all)-1)
	}
	return slices.Clone(all[i:])
}

// Forget removes the templates without a recent start.
func (s Starts) Forget(now time.Time) {
	maps.DeleteFunc(s, func(_ string, starts []time.Time) bool {
		return len(starts) == 0 || now.Sub(starts[len(starts)-1]) >= Unused
	})
}

// Plan returns how many ready runtimes each template has from now on, at most limit in all.
// Those with the most recent start come first.
func Plan(s Starts, limit int, now time.Time) map[string]int {
	wanted := make(map[string]int)
	last := func(template string) time.Time { return s[template][len(s[template])-1] }
	names := slices.SortedFunc(maps.Keys(s), func(a, b string) int {
		return cmp.Or(last(b).Compare(last(a)), cmp.Compare(a, b))
	})
	for _, template := range names {
		if limit <= 0 || now.Sub(last(template)) >= Unused {
			break
		}
		n := 0
		for _, t := range s[template] {
			if now.Sub(t) < Window {
				n++
			}
		}
		wanted[template] = min(max(n, Few), limit)
		limit -= wanted[template]
	}
	return wanted
}
