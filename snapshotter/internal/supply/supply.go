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
	// Window is the time in which the starts of a burst are counted.
	Window = time.Minute
	// Unused is how long after the last start a template has ready runtimes. So long it has as
	// many as containers were started in the largest burst.
	Unused = 10 * time.Minute
	// remembered is how many starts of a template are counted.
	remembered = 1000
)

// Starts has the times at which containers of each template were started, the last one last.
type Starts map[string][]time.Time

// Add adds a start.
func (s Starts) Add(template string, now time.Time) {
	recent := slices.DeleteFunc(s[template], func(t time.Time) bool { return now.Sub(t) >= Unused })
	s[template] = append(recent[max(0, len(recent)+1-remembered):], now)
}

// Forget removes the templates without a recent start.
func (s Starts) Forget(now time.Time) {
	maps.DeleteFunc(s, func(_ string, starts []time.Time) bool {
		return len(starts) == 0 || now.Sub(starts[len(starts)-1]) >= Unused
	})
}

// largestBurst returns the most starts of a template within one Window that were not longer than
// Unused ago.
func (s Starts) largestBurst(template string, now time.Time) (most int) {
	starts := slices.DeleteFunc(slices.Clone(s[template]), func(t time.Time) bool { return now.Sub(t) >= Unused })
	first := 0
	for i, t := range starts {
		for t.Sub(starts[first]) >= Window {
			first++
		}
		most = max(most, i+1-first)
	}
	return most
}

// Plan returns how many ready runtimes each template has from now on, at most limit in all. Each
// gets Few, and those with bursts get more if there are any left. Those with the most recent
// start come first.
func Plan(s Starts, limit int, now time.Time) map[string]int {
	wanted := make(map[string]int)
	last := func(template string) time.Time { return s[template][len(s[template])-1] }
	names := slices.SortedFunc(maps.Keys(s), func(a, b string) int {
		return cmp.Or(last(b).Compare(last(a)), cmp.Compare(a, b))
	})
	names = slices.DeleteFunc(names, func(name string) bool { return now.Sub(last(name)) >= Unused })
	give := func(name string, upTo int) {
		if n := min(upTo-wanted[name], limit); n > 0 {
			wanted[name] += n
			limit -= n
		}
	}
	for _, name := range names {
		give(name, Few)
	}
	for _, name := range names {
		give(name, s.largestBurst(name, now))
	}
	return wanted
}

// IsLow reports whether a template has few of the ready runtimes that it is to have: less than
// half of them.
func IsLow(have, wanted int) bool { return 2*have < wanted }
