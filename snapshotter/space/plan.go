package space

import (
	"container/heap"
	"fmt"
	"slices"
	"time"
)

// Eviction is a dataset to destroy: garbage or a cached template.
type Eviction struct {
	Node
	Reason string
}

// Plan lists datasets to destroy, in order.
type Plan struct {
	Evict []Eviction
	Bytes uint64 // that the whole plan frees
	// Problems explain, for limits above the threshold, why nothing is evicted for them.
	Problems []string
	// Next is the earliest time from which a plan destroys a dataset for its age. It is in the
	// past if this plan does. It is zero if there is no such dataset.
	Next time.Time
	// NextRetry is Next of only the datasets that could not be destroyed before.
	NextRetry time.Time
}

// EvictsCached reports whether the plan evicts a cached template.
func (p Plan) EvictsCached() bool {
	return slices.ContainsFunc(p.Evict, func(e Eviction) bool { return e.Cached })
}

// NewPlan plans the destruction of garbage, of expired templates, and of the least recently
// used ones of the rest, leaf before parent, until the templates that stay fit the policy and
// no limit is above the threshold. If evicting everything would not bring a limit below the
// threshold, NewPlan evicts nothing for that limit.
func NewPlan(nodes []Node, limits []Limit, policy Policy, now time.Time) Plan {
	p := planner{policy: policy, now: now}
	t := newTree(nodes)
	gone := make(map[string]bool)
	for _, n := range t.destroyable(func(n Node) bool { return policy.IsDue(n, now) }) {
		gone[n.Dataset] = true
		p.evict(n, p.reason(n))
	}
	for _, n := range t.nodes {
		if policy.mayEvict(n, now) && !gone[n.Dataset] {
			p.cached += n.Bytes
		}
		// What is due and not gone has a clone that stays.
		if at, ok := policy.due(n, now); ok && (gone[n.Dataset] || at.After(now)) {
			p.plan.noteNext(at, !n.Retry.IsZero())
		}
	}
	if policy.All || policy.MaxBytes > 0 || len(limits) > 0 {
		p.queue = leastRecentlyUsed(t, gone, func(n Node) bool { return policy.mayEvict(n, now) })
	}
	if policy.All {
		p.evictWhile(func() bool { return true }, "space is needed")
	}
	p.boundBytes()
	p.relievePressure(limits)
	return p.plan
}

// noteNext sets Next and NextRetry to the earliest time.
func (p *Plan) noteNext(at time.Time, retry bool) {
	if p.Next.IsZero() || at.Before(p.Next) {
		p.Next = at
	}
	if retry && (p.NextRetry.IsZero() || at.Before(p.NextRetry)) {
		p.NextRetry = at
	}
}

type planner struct {
	policy Policy
	now    time.Time
	queue  []Node // cached templates in the order of eviction
	cached uint64 // bytes of the cached templates that stay, without waiting ones
	plan   Plan
}

func (p *planner) evict(n Node, reason string) {
	p.plan.Evict = append(p.plan.Evict, Eviction{n, reason})
	p.plan.Bytes += n.Bytes
}

func (p *planner) reason(n Node) string {
	if n.Garbage {
		return "garbage"
	}
	return fmt.Sprintf("not used for %s", p.now.Sub(n.Since).Round(time.Second))
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

// leastRecentlyUsed returns the nodes that can be evicted, in order: each is the least
// recently used of those without a remaining clone.
func leastRecentlyUsed(t *tree, gone map[string]bool, may func(Node) bool) []Node {
	byName, clones := make(map[string]Node), make(map[string]int)
	for _, n := range t.nodes {
		byName[n.Dataset] = n
		if n.Origin != "" && !gone[n.Dataset] {
			clones[n.Origin]++
		}
	}
	var ready oldest
	offer := func(n Node) {
		if may(n) && !gone[n.Dataset] && clones[n.Dataset] == 0 {
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
	if !o[i].Since.Equal(o[j].Since) {
		return o[i].Since.Before(o[j].Since)
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
