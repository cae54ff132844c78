package snapshotter

import (
	"slices"
	"time"

	"github.com/zfstpl/zfstpl/snapshotter/internal/backoff"

	"github.com/zfstpl/zfstpl/snapshotter/space"
)

// nextDestroy returns the time from which a cleanup can destroy a dataset, which may be
// in the past, and whether there is such a dataset.
func (x *index) nextDestroy(keep time.Duration, now time.Time) (next time.Time, ok bool) {
	can := make(map[string]bool) // can be destroyed now: has no clone that stays
	for _, dataset := range space.Order(x.nodes(keep, now)) {
		can[dataset] = true
	}
	x.mu.RLock()
	defer x.mu.RUnlock()
	consider := func(dataset string, since time.Time) {
		if k := x.stuck[dataset]; k != nil && k.next.After(since) {
			since = k.next
		}
		if !since.After(now) && !can[dataset] {
			return
		}
		if !ok || since.Before(next) {
			next, ok = since, true
		}
	}
	for dataset, t := range x.garbage {
		consider(dataset, t.since)
	}
	for dataset, t := range x.templates {
		switch {
		case !t.cached():
		case t.IsOpaque():
			consider(dataset, t.idle)
		case keep != space.Forever:
			consider(dataset, t.idle.Add(keep))
		}
	}
	return next, ok
}

// hasClone reports whether a dataset has a clone of ours. It also reports true for the
// partial dataset of a runtime that is garbage: if the killed commit promoted it, the
// runtime is its clone.
func (x *index) hasClone(dataset string, now time.Time) bool {
	if x.isPartialOfGarbage(dataset) {
		return true
	}
	return slices.ContainsFunc(x.nodes(space.Forever, now), func(n space.Node) bool { return n.Origin == dataset })
}

func (x *index) isPartialOfGarbage(dataset string) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	t := x.garbage[dataset]
	return t != nil && x.garbage[t.runtime] != nil
}

// nodes returns the tree of clones in the index. Datasets that are in backoff at now are
// not marked for destruction or eviction.
func (x *index) nodes(keep time.Duration, now time.Time) []space.Node {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var nodes []space.Node
	for dataset, t := range x.templates {
		n := space.Node{Dataset: dataset}
		if t.cached() && !x.stuck[dataset].isWaiting(now) {
			n.Cached, n.Layer, n.Destroy = true, !t.IsOpaque(), t.expired(keep, now)
			n.LastUsed, n.Bytes = t.idle, t.bytes
		}
		if t.parent != nil {
			n.Origin = t.parent.Dataset()
		}
		nodes = append(nodes, n)
	}
	for dataset, t := range x.garbage {
		n := space.Node{Dataset: dataset, Destroy: !x.stuck[dataset].isWaiting(now)}
		if t.origin != nil {
			n.Origin = t.origin.Dataset()
		} else if x.garbage[t.runtime] != nil {
			n.Origin = t.runtime
		}
		nodes = append(nodes, n)
	}
	for _, r := range x.records {
		if r.Dataset != "" && r.template != nil && r.Dataset != r.template.Dataset() {
			nodes = append(nodes, space.Node{Dataset: r.Dataset, Origin: r.template.Dataset()})
		}
	}
	return nodes
}

// beginDestroy takes garbage and those templates of the batch for which may reports true
// out of use. It returns their datasets, with the template of those that had one.
func (x *index) beginDestroy(batch []string, may func(*template) bool, now time.Time) map[string]*template {
	x.mu.Lock()
	defer x.mu.Unlock()
	dying := make(map[string]*template)
	for _, dataset := range batch {
		t := x.templates[dataset]
		switch {
		case t != nil && may(t):
			delete(x.templates, dataset)
			x.discard(dataset, t.parent, now)
			dying[dataset] = t
		case t == nil && x.garbage[dataset] != nil:
			dying[dataset] = nil
		}
	}
	return dying
}

// finishDestroy removes the destroyed datasets from the index and puts the templates
// that are left back into use.
func (x *index) finishDestroy(dying map[string]*template, order []string, left func(string) bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, dataset := range order {
		if !left(dataset) {
			delete(x.garbage, dataset)
			delete(x.stuck, dataset)
			delete(x.reservedNames, dataset)
		} else if t := dying[dataset]; t != nil {
			x.templates[dataset] = t
			delete(x.garbage, dataset)
		}
	}
}

// removable returns the datasets that a cleanup without a policy and backoffs destroys,
// leaf first.
func (x *index) removable(now time.Time) []removable {
	nodes := x.nodes(0, now.Add(backoff.Max))
	origins := make(map[string]string)
	for _, n := range nodes {
		origins[n.Dataset] = n.Origin
	}
	x.mu.RLock()
	defer x.mu.RUnlock()
	var list []removable
	for _, dataset := range space.Order(nodes) {
		r := removable{Dataset: dataset, Origin: origins[dataset]}
		if t := x.templates[dataset]; t != nil {
			r.Template, r.Idle, r.Bytes = true, t.idle, t.bytes
		}
		list = append(list, r)
	}
	return list
}

// discard makes a dataset garbage. The caller holds the mutex.
func (x *index) discard(dataset string, origin *template, now time.Time) {
	x.garbage[dataset] = &garbage{dataset: dataset, origin: origin, since: now}
	x.onGarbage()
}

// due returns the time from which a cleanup has something to destroy; zero for never.
func (x *index) due(keep time.Duration, maxBytes uint64, now time.Time) time.Time {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if len(x.garbage) > 0 {
		return now
	}
	var first time.Time
	var cached uint64
	for _, t := range x.templates {
		if maxBytes > 0 && t.cached() {
			// A cleanup measures templates that are not measured yet.
			if cached += t.bytes; cached > maxBytes || !t.measured {
				return now
			}
		}
		switch {
		case t.expired(keep, now):
			return now
		case !t.cached() || keep == space.Forever:
			continue
		}
		if at := t.idle.Add(keep); first.IsZero() || at.Before(first) {
			first = at
		}
	}
	return first
}

func (x *index) isGarbage(dataset string) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.garbage[dataset] != nil
}

// addGarbage makes a dataset garbage. origin is the template of which it is a clone, or nil.
func (x *index) addGarbage(dataset string, origin *template, now time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.discard(dataset, origin, now)
}
