package space

import (
	"slices"
	"strings"
	"time"
)

// Node is a dataset in the tree of clones.
type Node struct {
	Dataset string
	Origin  string // the dataset whose snapshot this one is a clone of, or ""
	Garbage bool   // nothing can use the dataset again
	Cached  bool   // a template without records or pins
	// Since is when the dataset became garbage, or when a cached template was last used.
	Since time.Time
	// Retry is when a dataset may be tried again that could not be destroyed. It is zero
	// unless that happened.
	Retry time.Time
	// Bytes is the space that destroying the dataset frees. ZFS charges a block to the
	// file system in which it was written and to none of its clones, so the bytes of a
	// set that is destroyed leaf first add up.
	Bytes uint64
}

// tree is a set of nodes, sorted by name, with their clones.
type tree struct {
	nodes  []Node
	clones map[string][]Node // by origin
}

func newTree(nodes []Node) *tree {
	t := &tree{
		nodes:  slices.SortedFunc(slices.Values(nodes), func(a, b Node) int { return strings.Compare(a.Dataset, b.Dataset) }),
		clones: make(map[string][]Node),
	}
	for _, n := range t.nodes {
		if n.Origin != "" {
			t.clones[n.Origin] = append(t.clones[n.Origin], n)
		}
	}
	return t
}

// destroyable returns the nodes for which due reports true and whose clones are all
// destroyable too, leaf first. The result does not depend on the order of the nodes.
func (t *tree) destroyable(due func(Node) bool) []Node {
	var order []Node
	planned := make(map[string]bool)
	var visit func(n Node) bool
	visit = func(n Node) bool {
		if done, seen := planned[n.Dataset]; seen {
			return done
		}
		planned[n.Dataset] = false // ends the recursion if the nodes form a cycle
		free := due(n)
		for _, c := range t.clones[n.Dataset] {
			// Visit every clone, also of a dataset that stays: its clones may
			// be destroyable.
			free = visit(c) && free
		}
		if free {
			planned[n.Dataset] = true
			order = append(order, n)
		}
		return free
	}
	for _, n := range t.nodes {
		visit(n)
	}
	return order
}
