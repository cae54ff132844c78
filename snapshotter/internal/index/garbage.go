package index

import (
	"slices"
	"time"

	"github.com/zfstpl/zfstpl/snapshotter/internal/backoff"

	"github.com/zfstpl/zfstpl/snapshotter/space"
)

// NextDestroy returns the earliest time at which a cleanup can destroy a dataset. The time may
// be in the past. It returns false if there is no such dataset. A cached template counts from
// when it expires, which is keep after its last use; an eviction can destroy it earlier. If
// retry is set, only datasets count that an earlier cleanup failed to destroy. A dataset that
// has a clone is left out, unless the clone is destroyed too.
func (x *Index) NextDestroy(keep time.Duration, now time.Time, retry bool) (next time.Time, ok bool) {
	can := make(map[string]bool) // can be destroyed now: has no clone that stays
	for _, dataset := range space.Order(x.Nodes(keep, now)) {
		can[dataset] = true
	}
	x.mu.RLock()
	defer x.mu.RUnlock()
	consider := func(dataset string, since time.Time) {
		k := x.stuck[dataset]
		if k == nil && retry {
			return
		}
		if k != nil && k.next.After(since) {
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
		case !t.Cached():
		case t.IsOpaque():
			consider(dataset, t.Idle)
		case keep != space.Forever:
			consider(dataset, t.Idle.Add(keep))
		}
	}
	return next, ok
}

// HasClone reports whether a dataset has a clone of ours. It also reports true for the
// partial dataset of a runtime that is garbage: if the killed commit promoted it, the
// runtime is its clone.
func (x *Index) HasClone(dataset string, now time.Time) bool {
	if x.isPartialOfGarbage(dataset) {
		return true
	}
	return slices.ContainsFunc(x.Nodes(space.Forever, now), func(n space.Node) bool { return n.Origin == dataset })
}

func (x *Index) isPartialOfGarbage(dataset string) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	t := x.garbage[dataset]
	return t != nil && x.garbage[t.runtime] != nil
}

// Nodes returns the tree of clones in the index. Datasets that are in backoff at now are
// not marked for destruction or eviction.
func (x *Index) Nodes(keep time.Duration, now time.Time) []space.Node {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var nodes []space.Node
	for dataset, t := range x.templates {
		n := space.Node{Dataset: dataset}
		if t.Cached() && !x.stuck[dataset].isWaiting(now) {
			n.Cached, n.Layer, n.Destroy = true, !t.IsOpaque(), t.Expired(keep, now)
			n.LastUsed, n.Bytes = t.Idle, t.sizes.bytes
		}
		if t.Parent != nil {
			n.Origin = t.Parent.Dataset()
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
		if r.Dataset != "" && r.Template != nil && r.Dataset != r.Template.Dataset() {
			nodes = append(nodes, space.Node{Dataset: r.Dataset, Origin: r.Template.Dataset()})
		}
	}
	return nodes
}

// BeginDestroy takes garbage and those templates of the batch for which may reports true
// out of use. It returns their datasets, with the template of those that had one.
func (x *Index) BeginDestroy(batch []string, may func(*Template) bool, now time.Time) map[string]*Template {
	x.mu.Lock()
	defer x.mu.Unlock()
	dying := make(map[string]*Template)
	for _, dataset := range batch {
		t := x.templates[dataset]
		switch {
		case t != nil && may(t):
			delete(x.templates, dataset)
			x.discard(dataset, t.Parent, now)
			dying[dataset] = t
		case t == nil && x.garbage[dataset] != nil:
			dying[dataset] = nil
		}
	}
	return dying
}

// FinishDestroy removes the destroyed datasets from the index and puts the templates
// that are left back into use.
func (x *Index) FinishDestroy(dying map[string]*Template, order []string, left func(string) bool) {
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

// Removable returns the datasets that a cleanup without a policy and backoffs destroys,
// leaf first.
func (x *Index) Removable(now time.Time) []Removable {
	nodes := x.Nodes(0, now.Add(backoff.Max))
	origins := make(map[string]string)
	for _, n := range nodes {
		origins[n.Dataset] = n.Origin
	}
	x.mu.RLock()
	defer x.mu.RUnlock()
	var list []Removable
	for _, dataset := range space.Order(nodes) {
		r := Removable{Dataset: dataset, Origin: origins[dataset]}
		if t := x.templates[dataset]; t != nil {
			r.Template, r.Idle, r.Bytes = true, t.Idle, t.sizes.bytes
		}
		list = append(list, r)
	}
	return list
}

// discard makes a dataset garbage. The caller holds the mutex.
func (x *Index) discard(dataset string, origin *Template, now time.Time) {
	x.garbage[dataset] = &garbage{dataset: dataset, origin: origin, since: now}
	x.OnGarbage()
}

// Due returns the time from which a cleanup has something to destroy; zero for never.
func (x *Index) Due(keep time.Duration, maxBytes uint64, now time.Time) time.Time {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if len(x.garbage) > 0 {
		return now
	}
	var first time.Time
	var cached uint64
	for _, t := range x.templates {
		if maxBytes > 0 && t.Cached() {
			// A cleanup measures templates that are not measured yet.
			if cached += t.sizes.bytes; cached > maxBytes || !t.sizes.measured {
				return now
			}
		}
		switch {
		case t.Expired(keep, now):
			return now
		case !t.Cached() || keep == space.Forever:
			continue
		}
		if at := t.Idle.Add(keep); first.IsZero() || at.Before(first) {
			first = at
		}
	}
	return first
}

// IsGarbage reports whether the next cleanup destroys a dataset.
func (x *Index) IsGarbage(dataset string) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.garbage[dataset] != nil
}

// AddGarbage makes a dataset garbage. origin is the template of which it is a clone, or nil.
func (x *Index) AddGarbage(dataset string, origin *Template, now time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.discard(dataset, origin, now)
}
