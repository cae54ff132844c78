package space

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestOrderIsLeafFirst(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		nodes []Node
		want  []string
	}{
		"nothing":               {nil, nil},
		"nothing marked":        {[]Node{{Dataset: "a", Origin: "", Destroy: false}}, nil},
		"one":                   {[]Node{{Dataset: "a", Origin: "", Destroy: true}}, []string{"a"}},
		"leaf first":            {[]Node{{Dataset: "a", Origin: "", Destroy: true}, {Dataset: "b", Origin: "a", Destroy: true}, {Dataset: "c", Origin: "b", Destroy: true}}, []string{"c", "b", "a"}},
		"clone of one in use":   {[]Node{{Dataset: "a", Origin: "", Destroy: false}, {Dataset: "b", Origin: "a", Destroy: true}}, []string{"b"}},
		"origin of one in use":  {[]Node{{Dataset: "a", Origin: "", Destroy: true}, {Dataset: "b", Origin: "a", Destroy: true}, {Dataset: "c", Origin: "b", Destroy: false}}, nil},
		"sibling of one in use": {[]Node{{Dataset: "a", Origin: "", Destroy: true}, {Dataset: "b", Origin: "a", Destroy: false}, {Dataset: "c", Origin: "a", Destroy: true}}, []string{"c"}},
		"an unknown origin":     {[]Node{{Dataset: "a", Origin: "elsewhere", Destroy: true}}, []string{"a"}},
		"a cycle":               {[]Node{{Dataset: "a", Origin: "b", Destroy: true}, {Dataset: "b", Origin: "a", Destroy: true}}, nil},
		"its own origin":        {[]Node{{Dataset: "a", Origin: "a", Destroy: true}}, nil},
		"listed twice":          {[]Node{{Dataset: "a", Origin: "", Destroy: true}, {Dataset: "a", Origin: "", Destroy: true}}, []string{"a"}},
	} {
		assert.Equal(t, c.want, Order(c.nodes), what)
	}
}

// randomTree returns a tree of clones whose nodes are marked Destroy at random.
func randomTree(r *rand.Rand) []Node {
	nodes := make([]Node, r.IntN(40))
	for i := range nodes {
		nodes[i] = Node{Dataset: fmt.Sprintf("n%02d", i), Destroy: r.IntN(4) > 0}
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
		order := Order(slices.Clone(nodes))
		at := make(map[string]int)
		for i, dataset := range order {
			_, twice := at[dataset]
			require.False(t, twice, "%s twice", dataset)
			at[dataset] = i
		}
		for _, n := range nodes {
			place, planned := at[n.Dataset]
			require.False(t, planned && !n.Destroy, "%s is not marked Destroy", n.Dataset)
			free := n.Destroy
			for _, clone := range nodes {
				if clone.Origin != n.Dataset {
					continue
				}
				clonePlace, gone := at[clone.Dataset]
				free = free && gone
				if planned {
					require.True(t, gone, "%s has the clone %s, which stays", n.Dataset, clone.Dataset)
					require.Less(t, clonePlace, place, "%s is destroyed before its clone %s", n.Dataset, clone.Dataset)
				}
			}
			require.Equal(t, free, planned, "%s: every dataset that can be destroyed is planned", n.Dataset)
		}
		r.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
		require.Equal(t, order, Order(nodes), "the result does not depend on the order of the nodes")
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
