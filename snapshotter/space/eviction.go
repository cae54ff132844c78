package space

import (
	"container/heap"
	"fmt"
	"time"
)

// Forever as Policy.Keep evicts nothing for its age.
const Forever time.Duration = -1

// Relief is how far below the threshold an eviction for pressure goes, in
// percentage points: the next layer should not bring the pressure back at once.
const PressureMargin = 5

// Policy says which cached templates go.
type Policy struct {
	// Keep is how long one stays after its last use; zero keeps none.
	Keep time.Duration
	// MaxBytes is what all of them may have together; zero for no bound.
	MaxBytes uint64
	// Pressure is how full, in percent, whatever bounds the base may be before
	// they go; zero for never.
	Pressure int
	// All lets everything go that can.
	All bool
	// WarmOnly leaves trash to the next cleanup.
	CachedOnly bool
}

// Expired tells whether what was last used then has been kept for long enough.
func (p Policy) Expired(lastUsed, now time.Time) bool {
	return p.Keep != Forever && now.Sub(lastUsed) >= p.Keep
}

// Eviction is a dataset that goes.
type Eviction struct {
	Dataset  string
	Reason   string
	Bytes    uint64    // that come back
	Cached   bool      // it is a cached template, and no trash
	LastUsed time.Time // of a warm one
}

// Plan is what goes, in this order.
type Plan struct {
	Evict []Eviction
	Bytes uint64 // that come back in all
	// Problems say of limits that are too full why nothing is evicted for them.
	Problems []string
}

// Relieves tells whether a cached template goes in it.
func (p Plan) EvictsCached() bool {
	for _, e := range p.Evict {
		if e.Cached {
			return true
		}
	}
	return false
}

// Sweep plans what goes now: what is doomed, what is too old, and of the rest
// the least recently used, leaf before parent, until the templates that stay are
// no more than the policy allows and no limit is too full. Where evicting
// everything would not bring a limit below its threshold nothing is evicted for
// it: what is warm would be lost for nothing.
func PlanEvictions(nodes []Node, limits []Limit, policy Policy, now time.Time) Plan {
	nodes = append([]Node(nil), nodes...)
	for i, n := range nodes {
		nodes[i].Destroy = n.Destroy && (n.Cached || !policy.CachedOnly) || n.Cached && policy.Expired(n.LastUsed, now)
	}
	s := planner{policy: policy, now: now}
	t := newTree(nodes)
	gone := make(map[string]bool)
	for _, n := range t.destroyable() {
		gone[n.Dataset] = true
		s.evict(n, s.reason(n))
	}
	s.queue = leastRecentlyUsed(t, gone)
	for _, n := range t.nodes {
		if n.Cached && !gone[n.Dataset] {
			s.cached += n.Bytes
		}
	}
	if policy.All {
		s.evictWhile(func() bool { return true }, "room is wanted")
	}
	s.boundBytes()
	s.relievePressure(limits)
	return s.plan
}

type planner struct {
	policy Policy
	now    time.Time
	queue  []Node // warm ones in the order in which they may go
	cached uint64 // bytes of those that stay
	plan   Plan
}

func (s *planner) evict(n Node, why string) {
	s.plan.Evict = append(s.plan.Evict, Eviction{Dataset: n.Dataset, Reason: why, Bytes: n.Bytes, Cached: n.Cached, LastUsed: n.LastUsed})
	s.plan.Bytes += n.Bytes
}

func (s *planner) reason(n Node) string {
	if !n.Cached {
		return "garbage"
	}
	return UnusedReason(n.LastUsed, s.now)
}

// Unused says of what was last used then why it goes.
func UnusedReason(lastUsed, now time.Time) string {
	return fmt.Sprintf("not used for %s", now.Sub(lastUsed).Round(time.Second))
}

// takeWhile evicts from the queue as long as it is wanted.
func (s *planner) evictWhile(wanted func() bool, why string) {
	for len(s.queue) > 0 && wanted() {
		n := s.queue[0]
		s.queue = s.queue[1:]
		s.cached -= n.Bytes
		s.evict(n, why)
	}
}

func (s *planner) boundBytes() {
	most := s.policy.MaxBytes
	if most == 0 {
		return
	}
	s.evictWhile(func() bool { return s.cached > most }, fmt.Sprintf("cached templates may have %s in all", Size(most)))
}

// relieve evicts for the limits that are too full.
func (s *planner) relievePressure(limits []Limit) {
	if s.policy.Pressure == 0 {
		return
	}
	for _, l := range limits {
		if !l.Over(s.policy.Pressure) {
			continue
		}
		load, most := l.load(), share(l.Total, s.policy.Pressure)
		left := func() uint64 { return load - min(load, s.plan.Bytes) }
		if l.Blocked != "" {
			s.plan.Problems = append(s.plan.Problems, fmt.Sprintf("%s, and to evict would not help: %s", l, l.Blocked))
			continue
		}
		var rest uint64
		for _, n := range s.queue {
			rest += n.Bytes
		}
		if left() > most+rest {
			s.plan.Problems = append(s.plan.Problems, fmt.Sprintf("%s, and the %s that are warm would not bring it below %d%%", l, Size(rest), s.policy.Pressure))
			continue
		}
		if left() <= most {
			continue
		}
		until := share(l.Total, max(0, s.policy.Pressure-PressureMargin))
		s.evictWhile(func() bool { return left() > until }, l.String())
	}
}

// leastRecentlyUsed answers the warm nodes that can go, in the order in which
// they may: always the one that was used longest ago of those that have no clone.
func leastRecentlyUsed(t *tree, gone map[string]bool) []Node {
	byName, clones := make(map[string]Node), make(map[string]int)
	for _, n := range t.nodes {
		byName[n.Dataset] = n
		if n.Origin != "" && !gone[n.Dataset] {
			clones[n.Origin]++
		}
	}
	var ready oldest
	offer := func(n Node) {
		if n.Cached && !gone[n.Dataset] && clones[n.Dataset] == 0 {
			heap.Push(&ready, n)
		}
	}
	for _, n := range byName {
		offer(n)
	}
	var order []Node
	for ready.Len() > 0 {
		n, _ := heap.Pop(&ready).(Node)
		order = append(order, n)
		clones[n.Origin]--
		if parent, ok := byName[n.Origin]; ok {
			offer(parent)
		}
	}
	return order
}

// oldest is a heap by last use, then by name.
type oldest []Node

func (o oldest) Len() int      { return len(o) }
func (o oldest) Swap(i, j int) { o[i], o[j] = o[j], o[i] }
func (o oldest) Less(i, j int) bool {
	if !o[i].LastUsed.Equal(o[j].LastUsed) {
		return o[i].LastUsed.Before(o[j].LastUsed)
	}
	return o[i].Dataset < o[j].Dataset
}

func (o *oldest) Push(n any) {
	if n, ok := n.(Node); ok {
		*o = append(*o, n)
	}
}

func (o *oldest) Pop() any {
	last := (*o)[len(*o)-1]
	*o = (*o)[:len(*o)-1]
	return last
}
