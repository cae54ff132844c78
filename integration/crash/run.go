package crash

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// Run kills the daemon in one case, in all ways.
type Run struct {
	Case
	r     *rand.Rand
	tries int // kills within each call, 0 for the default
	rig   *Rig

	expected []expected // before the first step, and after each
	points   []point    // that the steps pass
	recovery []point    // that the last start passed

	kills, missed, inRecovery, recovered int
}

// NewRun returns a run of a case whose choices are those of r. It kills tries times within
// each call; 0 leaves the number to -short.
func NewRun(c Case, r *rand.Rand, tries int) *Run { return &Run{Case: c, r: r, tries: tries} }

// Everywhere kills the daemon after the operation, at each point and within calls. It uses
// one of the rigs. If a round fails on a rig, no further round uses the rig.
func (c *Run) Everywhere(t *testing.T, rigs *Rigs) {
	rig := <-rigs.free
	if c.rig = rig; rig == nil {
		c.rig = rigs.open(t)
	}
	defer func() {
		if c.rig != rig {
			rig = nil
		}
		rigs.free <- rig
	}()
	defer func() {
		if c.rig == rig && c.rig.shared != nil {
			newFixture(t, c.rig).tearDownShared(t)
		}
	}()
	c.try(t, rigs, "after it", kill{}, 0)
	if t.Failed() || len(c.points) == 0 {
		return
	}
	for _, n := range c.chosen() {
		c.atPoint(t, rigs, n)
	}
	c.withinCalls(t, rigs)
	var names []string
	for _, p := range c.points {
		names = append(names, p.what)
	}
	t.Logf("%d points: %s; killed %d times, %d of them after the last point because theirs did not come, and %d times in a recovery; %d recoveries changed the pool",
		len(names), strings.Join(names, ", "), c.kills, c.missed, c.inRecovery, c.recovered)
}

// chosen returns the points to kill at.
func (c *Run) chosen() []int {
	groups := groupByState(c.points)
	if !testing.Short() {
		return slices.Concat(groups...)
	}
	c.r.Shuffle(len(groups), func(i, j int) { groups[i], groups[j] = groups[j], groups[i] })
	var points []int
	for _, group := range groups[:min(len(groups), 1)] {
		points = append(points, group[c.r.IntN(len(group))])
	}
	return points
}

func (c *Run) atPoint(t *testing.T, rigs *Rigs, n int) {
	name, k := fmt.Sprintf("at %d, %s", n, c.points[n-1].what), kill{point: n}
	if testing.Short() {
		c.try(t, rigs, name, k, 1+c.r.IntN(6))
		return
	}
	c.try(t, rigs, name, k, 0)
	for _, group := range groupByState(c.recovery) {
		again := group[c.r.IntN(len(group))]
		c.try(t, rigs, fmt.Sprintf("%s, then at %d", name, again), k, again)
	}
}

// withinCalls kills within calls, while the kernel waits for the txg or runs a program, with
// and without the commands that the daemon runs.
func (c *Run) withinCalls(t *testing.T, rigs *Rigs) {
	var calls []int
	for i, p := range c.points {
		if _, ok := p.change(); ok {
			calls = append(calls, i)
		}
	}
	tries := 4
	switch {
	case c.tries > 0:
		tries = c.tries
	case testing.Short() && len(calls) > 0:
		i := c.r.IntN(len(calls))
		tries, calls = 1, calls[i:i+1]
	}
	for _, i := range calls {
		took := c.took(i)
		for n := range tries {
			k := kill{point: i + 1, delay: time.Duration(1 + c.r.Int64N(int64(took))), commands: c.rig.client == zfs.Command && n%2 == 0}
			c.try(t, rigs, fmt.Sprintf("within %d, %s, %s", i+1, c.points[i].what, k.delay), k, 1+c.r.IntN(6))
		}
	}
}

// took returns the duration of the call that point i is before.
func (c *Run) took(i int) time.Duration {
	call, _ := c.points[i].change()
	for _, p := range c.points[i:] {
		if p.what == "after "+call {
			return p.at.Sub(c.points[i].at)
		}
	}
	return time.Second // the operation did not wait for its end
}

// try runs a round as a test. After a round that failed, it opens another rig.
func (c *Run) try(t *testing.T, rigs *Rigs, name string, k kill, again int) {
	if !t.Run(name, func(t *testing.T) { c.round(t, k, again) }) {
		c.rig = rigs.open(t)
	}
}
