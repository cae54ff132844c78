package space

import (
	"slices"
	"strings"
	"time"
)

// Node is a dataset in the tree of clones.
type Node struct {
	Dataset string
	Origin  string // the dataset whose snapshot it is a clone of, or ""
	Destroy bool   // nobody needs it: it goes in any case
	// Warm tells that it is a template that no record names and that nothing
	// holds: it may go.
	Cached bool
	// Layer tells that a warm one is a layer, which somebody may pull again.
	Layer    bool
	LastUsed time.Time // of a warm one
	// Bytes come back when it is destroyed. ZFS charges a block to the file system
	// it was written in and to no clone of that, so of a set that is destroyed leaf
	// first these add up.
	Bytes uint64
}

// Order answers the datasets that can be destroyed, leaf first: those that are
// doomed and have no clone that is not. The same nodes give the same order.
func Order(nodes []Node) []string {
	var order []string
	for _, n := range newTree(nodes).destroyable() {
		order = append(order, n.Dataset)
	}
	return order
}

// tree is the nodes, sorted by name, with their clones.
type tree struct {
	nodes  []Node
	clones map[string][]Node // by the dataset that they are clones of
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

// doomed answers the doomed nodes that can go, leaf first.
func (t *tree) destroyable() []Node {
	var order []Node
	planned := make(map[string]bool)
	var visit func(n Node) bool
	visit = func(n Node) bool {
		if done, seen := planned[n.Dataset]; seen {
			return done
		}
		planned[n.Dataset] = false // whatever comes back to here is no tree
		free := n.Destroy
		for _, c := range t.clones[n.Dataset] {
			// Visit every clone, also of a dataset that stays: its doomed
			// clones go all the same.
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
