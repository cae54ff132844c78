package snapshotter

import (
	"slices"
	"strings"
)

// node is a dataset in the tree of clones, as a plan sees it.
type node struct {
	dataset string
	origin  string // the dataset whose snapshot it is a clone of, or ""
	doomed  bool   // nobody needs it
}

// plan answers the datasets that can be destroyed, leaf first: those that are
// doomed and have no clone that is not. It is pure; the same nodes give the
// same plan.
func plan(nodes []node) []string {
	nodes = slices.SortedFunc(slices.Values(nodes), func(a, b node) int { return strings.Compare(a.dataset, b.dataset) })
	clones := make(map[string][]node)
	for _, n := range nodes {
		if n.origin != "" {
			clones[n.origin] = append(clones[n.origin], n)
		}
	}
	var order []string
	planned := make(map[string]bool)
	var visit func(n node) bool
	visit = func(n node) bool {
		if done, seen := planned[n.dataset]; seen {
			return done
		}
		planned[n.dataset] = false // whatever comes back to here is no tree
		free := n.doomed
		for _, c := range clones[n.dataset] {
			// Visit every clone, also of a dataset that stays: its doomed
			// clones go all the same.
			free = visit(c) && free
		}
		if free {
			planned[n.dataset] = true
			order = append(order, n.dataset)
		}
		return free
	}
	for _, n := range nodes {
		visit(n)
	}
	return order
}
