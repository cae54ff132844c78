package snapshotter

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestPlan(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		nodes []node
		want  []string
	}{
		"nothing":           {nil, nil},
		"nothing doomed":    {[]node{{"a", "", false}}, nil},
		"one":               {[]node{{"a", "", true}}, []string{"a"}},
		"leaf first":        {[]node{{"a", "", true}, {"b", "a", true}, {"c", "b", true}}, []string{"c", "b", "a"}},
		"below one in use":  {[]node{{"a", "", false}, {"b", "a", true}}, []string{"b"}},
		"above one in use":  {[]node{{"a", "", true}, {"b", "a", true}, {"c", "b", false}}, nil},
		"beside one in use": {[]node{{"a", "", true}, {"b", "a", false}, {"c", "a", true}}, []string{"c"}},
		"an unknown origin": {[]node{{"a", "elsewhere", true}}, []string{"a"}},
		"a circle":          {[]node{{"a", "b", true}, {"b", "a", true}}, nil},
		"its own origin":    {[]node{{"a", "a", true}}, nil},
		"listed twice":      {[]node{{"a", "", true}, {"a", "", true}}, []string{"a"}},
	} {
		assert.Equal(t, c.want, plan(c.nodes), what)
	}
}

// randomTree is a tree of clones, of which each node is doomed at random.
func randomTree(r *rand.Rand) []node {
	nodes := make([]node, r.IntN(40))
	for i := range nodes {
		nodes[i] = node{dataset: fmt.Sprintf("n%02d", i), doomed: r.IntN(4) > 0}
		if i > 0 && r.IntN(10) > 0 {
			nodes[i].origin = nodes[r.IntN(i)].dataset
		}
	}
	r.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
	return nodes
}

func TestPlanOfRandomTrees(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 1000 {
		nodes := randomTree(r)
		order := plan(slices.Clone(nodes))
		at := make(map[string]int)
		for i, dataset := range order {
			_, twice := at[dataset]
			require.False(t, twice, "%s twice", dataset)
			at[dataset] = i
		}
		for _, n := range nodes {
			place, planned := at[n.dataset]
			require.False(t, planned && !n.doomed, "%s is not doomed", n.dataset)
			free := n.doomed
			for _, clone := range nodes {
				if clone.origin != n.dataset {
					continue
				}
				clonePlace, gone := at[clone.dataset]
				free = free && gone
				if planned {
					require.True(t, gone, "%s has the clone %s, which stays", n.dataset, clone.dataset)
					require.Less(t, clonePlace, place, "%s goes before its clone %s", n.dataset, clone.dataset)
				}
			}
			require.Equal(t, free, planned, "%s: all that can go goes", n.dataset)
		}
		r.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
		require.Equal(t, order, plan(nodes), "whatever the order of the nodes")
	}
}
