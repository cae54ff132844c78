package space

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// planned returns the datasets of a plan for garbage alone.
func planned(nodes []Node) []string {
	var order []string
	for _, e := range NewPlan(nodes, nil, Policy{}, now).Evict {
		order = append(order, e.Dataset)
	}
	return order
}

func TestOrderIsLeafFirst(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		nodes []Node
		want  []string
	}{
		"nothing":               {nil, nil},
		"nothing marked":        {[]Node{{Dataset: "a", Origin: "", Garbage: false}}, nil},
		"one":                   {[]Node{{Dataset: "a", Origin: "", Garbage: true}}, []string{"a"}},
		"leaf first":            {[]Node{{Dataset: "a", Origin: "", Garbage: true}, {Dataset: "b", Origin: "a", Garbage: true}, {Dataset: "c", Origin: "b", Garbage: true}}, []string{"c", "b", "a"}},
		"clone of one in use":   {[]Node{{Dataset: "a", Origin: "", Garbage: false}, {Dataset: "b", Origin: "a", Garbage: true}}, []string{"b"}},
		"origin of one in use":  {[]Node{{Dataset: "a", Origin: "", Garbage: true}, {Dataset: "b", Origin: "a", Garbage: true}, {Dataset: "c", Origin: "b", Garbage: false}}, nil},
		"sibling of one in use": {[]Node{{Dataset: "a", Origin: "", Garbage: true}, {Dataset: "b", Origin: "a", Garbage: false}, {Dataset: "c", Origin: "a", Garbage: true}}, []string{"c"}},
		"an unknown origin":     {[]Node{{Dataset: "a", Origin: "elsewhere", Garbage: true}}, []string{"a"}},
		"a cycle":               {[]Node{{Dataset: "a", Origin: "b", Garbage: true}, {Dataset: "b", Origin: "a", Garbage: true}}, nil},
		"its own origin":        {[]Node{{Dataset: "a", Origin: "a", Garbage: true}}, nil},
		"listed twice":          {[]Node{{Dataset: "a", Origin: "", Garbage: true}, {Dataset: "a", Origin: "", Garbage: true}}, []string{"a"}},
	} {
		assert.Equal(t, c.want, planned(c.nodes), what)
	}
}

// randomTree returns a tree of clones whose nodes are garbage at random.
func randomTree(r *rand.Rand) []Node {
	nodes := make([]Node, r.IntN(40))
	for i := range nodes {
		nodes[i] = Node{Dataset: fmt.Sprintf("n%02d", i), Garbage: r.IntN(4) > 0}
		if i > 0 && r.IntN(10) > 0 {
			nodes[i].Origin = nodes[r.IntN(i)].Dataset
		}
	}
	r.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
	return nodes
}

func TestOrderDestroysAllItCanInRandomTrees(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 1000 {
		nodes := randomTree(r)
		order := planned(slices.Clone(nodes))
		at := make(map[string]int)
		for i, dataset := range order {
			_, twice := at[dataset]
			require.False(t, twice, "%s twice", dataset)
			at[dataset] = i
		}
		for _, n := range nodes {
			place, goes := at[n.Dataset]
			require.False(t, goes && !n.Garbage, "%s is not garbage", n.Dataset)
			free := n.Garbage
			for _, clone := range nodes {
				if clone.Origin != n.Dataset {
					continue
				}
				clonePlace, gone := at[clone.Dataset]
				free = free && gone
				if goes {
					require.True(t, gone, "%s has the clone %s, which stays", n.Dataset, clone.Dataset)
					require.Less(t, clonePlace, place, "%s is destroyed before its clone %s", n.Dataset, clone.Dataset)
				}
			}
			require.Equal(t, free, goes, "%s: every dataset that can be destroyed is planned", n.Dataset)
		}
		r.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
		require.Equal(t, order, planned(nodes), "the result does not depend on the order of the nodes")
	}
}

// Of limits with equally few bytes left, one that is not blocked is returned.
func TestTightestPrefersLimitsThatAreNotBlocked(t *testing.T) {
	t.Parallel()
	wide := Limit{Of: "wide", Used: 10, Total: 100}
	full, blocked := Limit{Of: "full", Used: 50, Total: 50}, Limit{Of: "blocked", Used: 7, Total: 7, Blocked: "it is"}
	for _, limits := range [][]Limit{{wide, full, blocked}, {blocked, full, wide}, {full, blocked}} {
		assert.Equal(t, full, Tightest(limits))
	}
	assert.Equal(t, blocked, Tightest([]Limit{wide, blocked}))
	assert.Equal(t, Limit{}, Tightest(nil))
}
