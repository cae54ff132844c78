//go:build linux

package main

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/zfstpl/zfstpl/integration/powercut/ledger"
)

// plan is what follows from the seed about one life of the machine.
type plan struct {
	// The power goes some time after so many requests; early, after the time
	// alone, counted from the opening of the pool: while a cut is recovered
	// from.
	early    bool
	requests int
	delay    time.Duration
	last     bool // no cut: everything is removed
	narrow   bool // there is space for one layer, and every other one needs an eviction

	keep   string // how long the daemon keeps cached templates
	client string // how the daemon speaks to ZFS
	mode   string // when the daemon cleans up
	cached string // what its cached templates may have together
	ready  string // how many ready runtimes it has at most
}

// narrowRequests are the most where there is little room.
const narrowRequests = 12

func planOf(opts options) plan {
	r := rand.New(rand.NewPCG(opts.seed, uint64(opts.cycle)))
	p := plan{
		requests: 1 + r.IntN(opts.requests),
		delay:    time.Duration(r.Int64N(int64(100 * time.Millisecond))),
		early:    r.IntN(5) == 0 && opts.cycle > 0,
		keep:     []string{"0s", "forever"}[r.IntN(2)],
		client:   []string{"auto", "auto", "command"}[r.IntN(3)],
		last:     opts.cycle >= opts.cuts,
	}
	p.mode = []string{"gc", "gc", "background", "manual"}[r.IntN(4)]
	p.cached = []string{"0", "64KiB"}[r.IntN(2)]
	if p.narrow = r.IntN(3) == 0; p.narrow {
		// What is unpacked takes long, and something has to be cached.
		p.requests = 1 + r.IntN(narrowRequests)
		p.delay = time.Duration(r.Int64N(int64(5 * time.Second)))
		p.keep, p.cached = "forever", "0"
	}
	if p.early {
		p.delay = time.Duration(r.Int64N(int64(4 * time.Second)))
	}
	p.ready = []string{"0", "4", "16"}[r.IntN(3)]
	if p.last {
		p.keep, p.mode = "0s", "gc"
	}
	return p
}

func (p plan) String() string {
	when := fmt.Sprintf("cut %s after request %d", p.delay, p.requests)
	switch {
	case p.last:
		when = "no cut"
	case p.early:
		when = fmt.Sprintf("cut %s after the pool's opening begins", p.delay)
	case p.narrow:
		when += ", with room for one layer"
	}
	return fmt.Sprintf("%s; cached templates are kept %s and have at most %s (0: any), cleanups %s, at most %s ready runtimes, ZFS client %s", when, p.keep, p.cached, p.mode, p.ready, p.client)
}

// cutter says when to cut.
type cutter struct {
	plan  plan
	notes *ledger.Writer

	mu    sync.Mutex
	armed bool
	left  int
}

func newCutter(p plan, notes *ledger.Writer) *cutter {
	return &cutter{plan: p, notes: notes, left: p.requests}
}

// opening is called when the pool is about to be opened.
func (c *cutter) opening() {
	if c.plan.early && !c.plan.last {
		time.AfterFunc(c.plan.delay, c.cut)
	}
}

// arm begins to count requests.
func (c *cutter) arm() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.armed = !c.plan.early && !c.plan.last
}

// request counts one.
func (c *cutter) request() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.armed {
		return
	}
	if c.left--; c.left == 0 {
		time.AfterFunc(c.plan.delay, c.cut)
	}
}

// cut notifies the other side. It is not reported that this failed: if it does, the
// load ends by itself after some time, which is an error.
func (c *cutter) cut() { _ = c.notes.Say(ledger.Note{Note: ledger.Cut}) }
