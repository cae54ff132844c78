package index

import (
	"slices"
	"time"

	"github.com/zfstpl/zfstpl/snapshotter/space"
)

// HasClone reports whether a dataset has a clone of ours. It also reports true for the
// partial dataset of a runtime that is garbage: if the killed commit promoted it, the
// runtime is its clone.
func (x *Index) HasClone(dataset string) bool {
	if x.isPartialOfGarbage(dataset) {
		return true
	}
	return slices.ContainsFunc(x.Nodes(), func(n space.Node) bool { return n.Origin == dataset })
}

func (x *Index) isPartialOfGarbage(dataset string) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	t := x.garbage[dataset]
	return t != nil && x.garbage[t.runtime] != nil
}

// Nodes returns the tree of clones in the index.
func (x *Index) Nodes() []space.Node {
	return x.nodes(func(*Template) bool { return true })
}

// PlanNodes returns the nodes that can change a plan: all but the runtimes in use whose template
// stays in any case. There may be thousands of those, and plans are made often.
func (x *Index) PlanNodes() []space.Node { return x.nodes((*Template).Cached) }

// nodes returns the tree of clones, with the runtimes in use of those templates for which of
// reports true.
func (x *Index) nodes(of func(*Template) bool) []space.Node {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var nodes []space.Node
	for _, t := range x.templates {
		nodes = append(nodes, x.node(t))
	}
	for dataset, t := range x.garbage {
		n := space.Node{Dataset: dataset, Garbage: true, Since: t.since, Retry: x.retryTime(dataset)}
		if t.origin != nil {
			n.Origin = t.origin.Dataset()
		} else if x.garbage[t.runtime] != nil {
			n.Origin = t.runtime
		}
		nodes = append(nodes, n)
	}
	for _, r := range x.ready {
		if of(r.Origin) {
			nodes = append(nodes, space.Node{Dataset: r.Dataset, Origin: r.Origin.Dataset()})
		}
	}
	for _, r := range x.records {
		if r.Dataset != "" && r.Template != nil && r.Dataset != r.Template.Dataset() && of(r.Template) {
			nodes = append(nodes, space.Node{Dataset: r.Dataset, Origin: r.Template.Dataset()})
		}
	}
	return nodes
}

// node returns the node of a template. An unused opaque template is garbage, because no
// pull can use it. The caller holds the mutex.
func (x *Index) node(t *Template) space.Node {
	n := space.Node{Dataset: t.Dataset()}
	if t.Parent != nil {
		n.Origin = t.Parent.Dataset()
	}
	if t.Cached() {
		n.Cached, n.Garbage = true, t.IsOpaque()
		n.Since, n.Retry, n.Bytes = t.Idle, x.retryTime(n.Dataset), t.sizes.bytes
	}
	return n
}

// BeginDestroy takes garbage and those templates of the batch for which may reports true
// out of use. It returns their datasets, with the template of those that had one.
func (x *Index) BeginDestroy(batch []string, may func(space.Node) bool, now time.Time) map[string]*Template {
	x.mu.Lock()
	defer x.mu.Unlock()
	dying := make(map[string]*Template)
	for _, dataset := range batch {
		t := x.templates[dataset]
		switch {
		case t != nil && may(x.node(t)):
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
	var list []Removable
	for _, e := range space.NewPlan(x.PlanNodes(), nil, space.Policy{All: true, Retry: true}, now).Evict {
		r := Removable{Dataset: e.Dataset, Origin: e.Origin}
		if x.Template(e.Dataset) != nil {
			r.Template, r.Idle, r.Bytes = true, e.Since, e.Bytes
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
