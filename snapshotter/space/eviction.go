package space

import (
	"container/heap"
	"fmt"
	"time"
)

// Forever is a Policy.Keep that never evicts a template for its age.
const Forever time.Duration = -1

// PressureMargin is how far below the threshold an eviction under pressure continues,
// in percentage points, so that the next layer does not exceed the threshold again.
const PressureMargin = 5

// Policy selects the cached templates to evict.
type Policy struct {
	// Keep is how long a template is kept after its last use. Zero keeps none.
	Keep time.Duration
	// MaxBytes bounds the space of all cached templates together. Zero means no bound.
	MaxBytes uint64
	// Pressure is the percentage of a limit above which templates are evicted. Zero
	// means never.
	Pressure int
	// All evicts every cached template that can be destroyed.
	All bool
	// CachedOnly leaves garbage to the next cleanup.
	CachedOnly bool
}

// Expired reports whether a template last used at lastUsed is kept no longer.
func (p Policy) Expired(lastUsed, now time.Time) bool {
	return p.Keep != Forever && now.Sub(lastUsed) >= p.Keep
}

// Eviction is a dataset to destroy.
type Eviction struct {
	Dataset  string
	Reason   string
	Bytes    uint64    // that its destruction frees
	Cached   bool      // a cached template; otherwise garbage
	LastUsed time.Time // of a cached template
}

// Plan lists datasets to destroy, in order.
type Plan struct {
	Evict []Eviction
	Bytes uint64 // that the whole plan frees
	// Problems explain, for limits above the threshold, why nothing is evicted for them.
	Problems []string
}

// EvictsCached reports whether the plan evicts a cached template.
func (p Plan) EvictsCached() bool {
	for _, e := range p.Evict {
		if e.Cached {
			return true
		}
	}
	return false
}

// PlanEvictions plans the destruction of the nodes marked Destroy, of expired
// templates, and of the least recently used ones of the rest, leaf before parent, until
// the templates that stay fit the policy and no limit is above the threshold. If
// evicting everything would not bring a limit below the threshold, PlanEvictions evicts
// nothing for that limit.
func PlanEvictions(nodes []Node, limits []Limit, policy Policy, now time.Time) Plan {
	nodes = append([]Node(nil), nodes...)
	for i, n := range nodes {
		nodes[i].Destroy = n.Destroy && (n.Cached || !policy.CachedOnly) || n.Cached && policy.Expired(n.LastUsed, now)
	}
	p := planner{policy: policy, now: now}
	t := newTree(nodes)
	gone := make(map[string]bool)
	for _, n := range t.destroyable() {
		gone[n.Dataset] = true
		p.evict(n, p.reason(n))
	}
	p.queue = leastRecentlyUsed(t, gone)
	for _, n := range t.nodes {
		if n.Cached && !gone[n.Dataset] {
			p.cached += n.Bytes
		}
	}
	if policy.All {
		p.evictWhile(func() bool { return true }, "space is needed")
	}
	p.boundBytes()
	p.relievePressure(limits)
	return p.plan
}

type planner struct {
	policy Policy
	now    time.Time
	queue  []Node // cached templates in the order of eviction
	cached uint64 // bytes of the templates that stay
	plan   Plan
}

func (p *planner) evict(n Node, reason string) {
	p.plan.Evict = append(p.plan.Evict, Eviction{Dataset: n.Dataset, Reason: reason, Bytes: n.Bytes, Cached: n.Cached, LastUsed: n.LastUsed})
	p.plan.Bytes += n.Bytes
}

func (p *planner) reason(n Node) string {
	if !n.Cached {
		return "garbage"
	}
	return UnusedReason(n.LastUsed, p.now)
}

// UnusedReason returns the reason to evict a template last used at lastUsed.
func UnusedReason(lastUsed, now time.Time) string {
	return fmt.Sprintf("not used for %s", now.Sub(lastUsed).Round(time.Second))
}

// evictWhile evicts from the queue as long as more reports true.
func (p *planner) evictWhile(more func() bool, reason string) {
	for len(p.queue) > 0 && more() {
		n := p.queue[0]
		p.queue = p.queue[1:]
		p.cached -= n.Bytes
		p.evict(n, reason)
	}
}

func (p *planner) boundBytes() {
	most := p.policy.MaxBytes
	if most == 0 {
		return
	}
	p.evictWhile(func() bool { return p.cached > most }, fmt.Sprintf("cached templates are limited to %s in total", Size(most)))
}

// relievePressure evicts for the limits that are above the threshold.
func (p *planner) relievePressure(limits []Limit) {
	if p.policy.Pressure == 0 {
		return
	}
	for _, l := range limits {
		if !l.Over(p.policy.Pressure) {
			continue
		}
		load, most := l.load(), share(l.Total, p.policy.Pressure)
		left := func() uint64 { return load - min(load, p.plan.Bytes) }
		if l.Blocked != "" {
			p.plan.Problems = append(p.plan.Problems, fmt.Sprintf("%s, and eviction would not help: %s", l, l.Blocked))
			continue
		}
		var rest uint64
		for _, n := range p.queue {
			rest += n.Bytes
		}
		if left() > most+rest {
			p.plan.Problems = append(p.plan.Problems, fmt.Sprintf("%s, and evicting all %s of cached templates would not bring it below %d%%", l, Size(rest), p.policy.Pressure))
			continue
		}
		if left() <= most {
			continue
		}
		until := share(l.Total, max(0, p.policy.Pressure-PressureMargin))
		p.evictWhile(func() bool { return left() > until }, l.String())
	}
}

// leastRecentlyUsed returns the cached nodes that can be evicted, in order: each is the
// least recently used of those without a remaining clone.
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

// oldest is a heap ordered by last use, then by name.
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
