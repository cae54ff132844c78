package supply

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestPlanFollowsTheStarts(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	burst := func(template string, n int, at time.Duration) func(Starts) {
		return func(s Starts) {
			for range n {
				s.Add(template, start.Add(at))
			}
		}
	}
	for what, c := range map[string]struct {
		starts []func(Starts)
		limit  int
		after  time.Duration
		want   map[string]int
	}{
		"none for an unused template":       {nil, 16, 0, map[string]int{}},
		"a few after a start":               {[]func(Starts){burst("a", 1, 0)}, 16, time.Second, map[string]int{"a": Few}},
		"more after a burst":                {[]func(Starts){burst("a", 9, 0)}, 16, time.Second, map[string]int{"a": 9}},
		"never more than the limit":         {[]func(Starts){burst("a", 90, 0)}, 16, time.Second, map[string]int{"a": 16}},
		"as many for long after it":         {[]func(Starts){burst("a", 9, 0)}, 16, Unused - 1, map[string]int{"a": 9}},
		"a few when it is long ago":         {[]func(Starts){burst("a", 9, 0), burst("a", 1, Unused-1)}, 16, Unused, map[string]int{"a": Few}},
		"the largest of several bursts":     {[]func(Starts){burst("a", 3, 0), burst("a", 7, Window), burst("a", 1, 2*Window)}, 16, 3 * Window, map[string]int{"a": 7}},
		"a burst across the minute":         {[]func(Starts){burst("a", 3, 0), burst("a", 4, Window-1)}, 16, Window, map[string]int{"a": 7}},
		"none when it is not used any more": {[]func(Starts){burst("a", 9, 0)}, 16, Unused, map[string]int{}},
		"none if the setting is 0":          {[]func(Starts){burst("a", 9, 0)}, 0, 0, map[string]int{}},
		"the last started comes first":      {[]func(Starts){burst("a", 3, 0), burst("b", 3, time.Second)}, 5, time.Second, map[string]int{"b": 3, "a": 2}},
		"a burst takes no other's few":      {[]func(Starts){burst("a", 1, 0), burst("b", 9, time.Second)}, 6, time.Second, map[string]int{"b": 4, "a": 2}},
		"an unused one takes nothing":       {[]func(Starts){burst("a", 3, 0), burst("b", 3, Unused)}, 16, Unused, map[string]int{"b": 3}},
	} {
		s := make(Starts)
		for _, add := range c.starts {
			add(s)
		}
		assert.Equal(t, c.want, Plan(s, c.limit, start.Add(c.after)), what)
	}
}

func TestForgetKeepsWhatIsUsed(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	s := make(Starts)
	s.Add("old", now)
	s.Add("new", now.Add(time.Minute))
	s.Forget(now.Add(Unused))
	assert.Len(t, s, 1)
	assert.Contains(t, s, "new")
	for range 2 * remembered {
		s.Add("new", now.Add(time.Hour))
	}
	assert.Equal(t, remembered, len(s["new"]))
	s.Add("new", now.Add(time.Hour+Unused))
	assert.Equal(t, 1, len(s["new"]), "the burst is forgotten")
}

func TestASupplyIsLowBelowHalf(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		have, wanted int
		low          bool
	}{{0, 0, false}, {0, 1, true}, {1, 1, false}, {0, Few, true}, {1, Few, false}, {31, 64, true}, {32, 64, false}, {9, 2, false}} {
		assert.Equal(t, c.low, IsLow(c.have, c.wanted), "%d of %d", c.have, c.wanted)
	}
}
