package integration

import (
	"flag"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zfstpl/zfstpl/integration/testpool"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

var (
	crashSeed   = flag.Uint64("crash.seed", 0, "repeat the choices that were printed with this `SEED`; 0 chooses one")
	crashDaemon = flag.String("crash.daemon", "containerd-zfstpl-grpc-failpoint", "the `PROGRAM` that dies, a daemon with failure points")
	crashTries  = flag.Int("crash.tries", 0, "die so many `TIMES` within each call; 0 leaves it to -short")
)

// The daemon dies by SIGKILL before and after every call to ZFS of every
// operation, and in the middle of calls; at the next start it dies again while
// it recovers. Then the operation has happened or it has not, the invariants
// hold, what did not happen can be done, and nothing is left behind.
//
// A short run dies at one point of each operation, once within a call, and at one
// point of each recovery, which the seed chooses; with the zfs command it takes one
// operation. A long one dies at each point and, in the recovery, once for each
// state of the pool.
//
// It runs beside no other test: a kill within a call is to hit it. Daemons die
// side by side where there are processors for them.
func TestCrash(t *testing.T) {
	seed := *crashSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d", seed)
	clients := []zfs.Choice{zfs.Native, zfs.Command}
	if os.Getenv(testpool.ClientVariable) != "" {
		clients = []zfs.Choice{testpool.ClientChoice()}
	}
	for _, client := range clients {
		t.Run(string(client), func(t *testing.T) {
			sample := testing.Short() && client == zfs.Command && len(clients) > 1
			rigs := make(chan *crashRig, runtime.GOMAXPROCS(0))
			for range cap(rigs) {
				rigs <- newCrashRig(t, client)
			}
			cases := crashCases()
			if sample {
				rand.New(rand.NewPCG(seed, 0)).Shuffle(len(cases), func(i, j int) { cases[i], cases[j] = cases[j], cases[i] })
				cases = cases[:1]
			}
			for _, c := range cases {
				sum := fnv.New64()
				fmt.Fprint(sum, client, c.name)
				run := crashRun{crashCase: c, client: client, r: rand.New(rand.NewPCG(seed, sum.Sum64()))}
				t.Run(c.name, func(t *testing.T) {
					t.Parallel()
					run.everywhere(t, rigs)
				})
			}
		})
	}
}

// crashRun makes the daemon die in one case, in all ways there are.
type crashRun struct {
	crashCase
	client zfs.Choice
	r      *rand.Rand
	rig    *crashRig

	states   []crashState // before the first step, and after each
	points   []crashPoint // that the steps pass
	recovery []crashPoint // that the last start passed

	deaths, missed, inRecovery, worked int
}

// everywhere dies behind the operation, at each point and within calls. It
// takes a rig and gives it back, or nil where a round failed on it: what comes
// next then makes its own.
func (c *crashRun) everywhere(t *testing.T, rigs chan *crashRig) {
	shared := <-rigs
	if c.rig = shared; shared == nil {
		c.rig = newCrashRig(t, c.client)
	}
	defer func() {
		if c.rig != shared {
			shared = nil
		}
		rigs <- shared
	}()
	defer func() {
		if c.rig == shared && c.rig.staged {
			newCrashScene(t, c.rig).strike(t)
		}
	}()
	c.try(t, "behind it", crashBlow{}, 0)
	if t.Failed() || len(c.points) == 0 {
		return
	}
	for _, n := range c.chosen() {
		c.atPoint(t, n)
	}
	c.withinCalls(t)
	var names []string
	for _, p := range c.points {
		names = append(names, p.what)
	}
	t.Logf("%d points: %s; died %d times, %d of them behind the last point as theirs did not come, and %d times in a recovery; %d recoveries found work",
		len(names), strings.Join(names, ", "), c.deaths, c.missed, c.inRecovery, c.worked)
}

// chosen are the points to die at.
func (c *crashRun) chosen() []int {
	groups := alike(c.points)
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

// change returns the call that a point is before, if it can leave something
// behind.
func change(p crashPoint) (call string, ok bool) {
	call, ok = strings.CutPrefix(p.what, "before ")
	return call, ok && (strings.HasPrefix(call, "program ") || call == "clone" || call == "mount")
}

// alike groups points, counted from 1, by the state of the pool at them: it is
// another one behind every call that can change it.
func alike(points []crashPoint) (groups [][]int) {
	fresh := true
	for i, p := range points {
		if fresh {
			groups = append(groups, nil)
		}
		groups[len(groups)-1] = append(groups[len(groups)-1], i+1)
		_, fresh = change(p)
	}
	return groups
}

func (c *crashRun) atPoint(t *testing.T, n int) {
	name, b := fmt.Sprintf("at %d, %s", n, c.points[n-1].what), crashBlow{point: n}
	if testing.Short() {
		c.try(t, name, b, 1+c.r.IntN(6))
		return
	}
	c.try(t, name, b, 0)
	for _, group := range alike(c.recovery) {
		again := group[c.r.IntN(len(group))]
		c.try(t, fmt.Sprintf("%s, then at %d", name, again), b, again)
	}
}

// withinCalls dies in the middle of calls, where the kernel waits for the
// transaction group or carries out a program, with and without the commands
// that the daemon runs.
func (c *crashRun) withinCalls(t *testing.T) {
	var calls []int
	for i, p := range c.points {
		if _, ok := change(p); ok {
			calls = append(calls, i)
		}
	}
	tries := 4
	switch {
	case *crashTries > 0:
		tries = *crashTries
	case testing.Short() && len(calls) > 0:
		i := c.r.IntN(len(calls))
		tries, calls = 1, calls[i:i+1]
	}
	for _, i := range calls {
		took := c.took(i)
		for n := range tries {
			b := crashBlow{point: i + 1, delay: time.Duration(1 + c.r.Int64N(int64(took))), commands: c.client == zfs.Command && n%2 == 0}
			c.try(t, fmt.Sprintf("within %d, %s, %s", i+1, c.points[i].what, b.delay), b, 1+c.r.IntN(6))
		}
	}
}

// took returns how long the call lasted that point i is before.
func (c *crashRun) took(i int) time.Duration {
	call, _ := change(c.points[i])
	for _, p := range c.points[i:] {
		if p.what == "after "+call {
			return p.at.Sub(c.points[i].at)
		}
	}
	return time.Second // its end was not waited for
}

// try is a round as a test of its own. A rig on which one failed is not used
// again.
func (c *crashRun) try(t *testing.T, name string, b crashBlow, again int) {
	if !t.Run(name, func(t *testing.T) { c.round(t, b, again) }) {
		c.rig = newCrashRig(t, c.client)
	}
}
