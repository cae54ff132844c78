package waits

import (
	"fmt"
	"slices"
	"strings"
)

// Counts is what a process waited for.
type Counts struct {
	// Txgs is the number of txgs that threads of the process waited for. It counts waits, not
	// calls: a call whose txg is on disk already returns at once and counts none. (The first
	// ZIL commit of a file system makes one such call.) Two threads that wait for the same txg
	// count two. A call for txg 0 waits for the open txg and the two after it, and counts three.
	Txgs int
	// ZIL is the number of commits of the ZIL of all datasets of the pool, by any process.
	ZIL int
	// Commits is ZIL by dataset, without those that have none.
	Commits map[string]int
	// Gone has the datasets that were unmounted meanwhile. Their counters are lost, so ZIL
	// lacks their commits.
	Gone []string
	// Calls has every call, also those that did not wait, in the order of their begin.
	Calls []Call
}

// deferredTxgs is the number of txgs after the open one that a call for txg 0 waits for:
// TXG_DEFER_SIZE.
const deferredTxgs = 2

// Call is a call of a thread of the process that waits for a txg.
type Call struct {
	Thread int
	Txg    uint64 // 0 for all changes until now and the frees they cause
	Waited bool   // false if the txg was on disk already
	Open   bool   // the call had not returned when the calls were counted
	Stack  []string
}

// txgs returns the number of txgs that the call waited for.
func (c Call) txgs() int {
	switch {
	case !c.Waited:
		return 0
	case c.Txg == 0:
		return 1 + deferredTxgs
	default:
		return 1
	}
}

// String returns the call with the functions that led to it, the innermost first.
func (c Call) String() string {
	word := "did not wait"
	if c.Waited {
		word = "waited"
	}
	return fmt.Sprintf("thread %d, txg %d, %s: %s", c.Thread, c.Txg, word, strings.Join(c.Stack, " < "))
}

// String returns the two numbers.
func (c Counts) String() string {
	text := fmt.Sprintf("txgs: %d, ZIL commits: %d", c.Txgs, c.ZIL)
	if len(c.Gone) > 0 {
		text += fmt.Sprintf(", without those of datasets that were unmounted: %d", len(c.Gone))
	}
	return text
}

// Details returns every call and the ZIL commits of each dataset, one a line.
func (c Counts) Details() string {
	var b strings.Builder
	for _, call := range c.Calls {
		fmt.Fprintln(&b, call)
	}
	var names []string
	for name := range c.Commits {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Fprintf(&b, "%d ZIL commits of %s\n", c.Commits[name], name)
	}
	for _, name := range c.Gone {
		fmt.Fprintf(&b, "%s was unmounted\n", name)
	}
	return b.String()
}

// addCalls adds calls.
func (c *Counts) addCalls(calls []Call) {
	c.Calls = calls
	for _, call := range calls {
		c.Txgs += call.txgs()
	}
}

// isBusy reports whether a call has not returned.
func (c Counts) isBusy() bool {
	return slices.ContainsFunc(c.Calls, func(c Call) bool { return c.Open })
}
