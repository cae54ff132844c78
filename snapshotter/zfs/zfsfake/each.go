package zfsfake

import (
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
)

// maxCuts is far more than the points of any operation. An operation with more does not end.
const maxCuts = 100

// Cut is one point of those that an operation passes. Each returns them.
type Cut struct {
	Point Point

	n       int // how many of them come before it
	mu      sync.Mutex
	used    bool
	reached *event
}

// Each returns the points that match at and that an operation passes, one after the other. The
// body of the loop must run the operation with a failure at the cut, on a new pool. The last
// cut is one that the operation did not reach, so that it was completed. Each logs the number
// of the others. The test fails if there are none.
func Each(tb testing.TB, at Point) iter.Seq[*Cut] { return each(tb, at, 1) }

// EachOrNone is Each for an operation that may pass no such point.
func EachOrNone(tb testing.TB, at Point) iter.Seq[*Cut] { return each(tb, at, 0) }

func each(tb testing.TB, at Point, least int) iter.Seq[*Cut] {
	return func(yield func(*Cut) bool) {
		tb.Helper()
		for n := range maxCuts {
			c := &Cut{n: n}
			c.Point = at
			c.Point.cut = c
			if !yield(c) {
				return
			}
			if !c.used {
				tb.Fatalf("the loop does not use cut %d", n)
			}
			if !c.Reached() {
				if n < least {
					tb.Errorf("the operation reaches no point %q", at)
				}
				tb.Logf("points %s: %d", at, n)
				return
			}
		}
		tb.Fatalf("the operation reaches more than %d points %s", maxCuts, at)
	}
}

func (c *Cut) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.used = true
}

// isAt reports whether the cut is where the pool is: at the seen-th point, from 1.
func (c *Cut) isAt(seen int, e event) bool {
	if seen != c.n+1 {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reached = &e
	return true
}

// Reached reports whether the operation reached the cut. If not, it was completed.
func (c *Cut) Reached() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reached != nil
}

// Is reports whether the cut is at a call or a transaction with an operation of the given kind.
func (c *Cut) Is(kind Kind) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reached != nil && slices.ContainsFunc(c.reached.ops, func(op operation) bool { return op.kind == kind })
}

// String returns the name of the cut, after the operation has reached it.
func (c *Cut) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reached == nil {
		return "not interrupted"
	}
	return c.reached.String()
}

// counter counts how often the pool passes a point.
type counter struct {
	at Point
	n  atomic.Int64
}

// Count returns a function that returns how often the pool has passed a point since.
func (p *Pool) Count(at Point) (passed func() int) {
	c := &counter{at: at}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counters = append(p.counters, c)
	return func() int { return int(c.n.Load()) }
}
