package space

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// cached returns a cached template of 100 bytes, last used the given number of hours ago.
func cached(dataset, origin string, hours int) Node {
	return Node{Dataset: dataset, Origin: origin, Cached: true, Since: now.Add(-time.Duration(hours) * time.Hour), Bytes: 100}
}

func used(dataset, origin string) Node {
	return Node{Dataset: dataset, Origin: origin, Bytes: 1000}
}

func garbage(dataset, origin string) Node {
	return Node{Dataset: dataset, Origin: origin, Garbage: true, Bytes: 10}
}

func pool(used, total uint64) []Limit { return []Limit{{Of: "pool tank", Used: used, Total: total}} }

// waiting returns a node that could not be destroyed and may be tried again in an hour.
func waiting(n Node) Node { n.Retry = now.Add(time.Hour); return n }

func TestPlanFollowsThePolicy(t *testing.T) {
	t.Parallel()
	chain := []Node{used("base", ""), cached("a", "base", 5), cached("b", "a", 9), cached("c", "base", 7), used("d", "base"), garbage("t", "base")}
	forever := Policy{Keep: Forever}
	for what, c := range map[string]struct {
		nodes    []Node
		limits   []Limit
		policy   Policy
		want     []string
		reason   string // of the last eviction
		problems []string
	}{
		"garbage alone":                     {chain, nil, forever, []string{"t"}, "garbage", nil},
		"Keep is zero":                      {chain, nil, Policy{}, []string{"b", "a", "c", "t"}, "garbage", nil},
		"expired":                           {chain, nil, Policy{Keep: 8 * time.Hour}, []string{"b", "t"}, "garbage", nil},
		"expired, with a clone that is not": {[]Node{cached("a", "", 9), cached("b", "a", 1)}, nil, Policy{Keep: 5 * time.Hour}, nil, "", nil},
		"everything":                        {chain, nil, Policy{Keep: Forever, All: true}, []string{"t", "b", "c", "a"}, "space is needed", nil},
		"more bytes than allowed":           {chain, nil, Policy{Keep: Forever, MaxBytes: 150}, []string{"t", "b", "c"}, "cached templates are limited to 150B in total", nil},
		"more bytes with one that is stuck": {[]Node{waiting(cached("a", "", 9)), cached("b", "", 1)}, nil, Policy{Keep: Forever, MaxBytes: 150}, nil, "", nil},
		"as many bytes as allowed":          {chain, nil, Policy{Keep: Forever, MaxBytes: 300}, []string{"t"}, "garbage", nil},
		"not too full":                      {chain, pool(800, 1000), Policy{Keep: Forever, Pressure: 80}, []string{"t"}, "garbage", nil},
		"garbage is enough":                 {chain, pool(805, 1000), Policy{Keep: Forever, Pressure: 80}, []string{"t"}, "garbage", nil},
		"a little too full":                 {chain, pool(850, 1000), Policy{Keep: Forever, Pressure: 80}, []string{"t", "b"}, "pool tank is 85% full (850B of 1000B)", nil},
		"further down than the threshold":   {chain, pool(905, 1000), Policy{Keep: Forever, Pressure: 80}, []string{"t", "b", "c"}, "pool tank is 90% full (905B of 1000B)", nil},
		"ZFS is freeing enough":             {chain, []Limit{{Of: "p", Used: 950, Total: 1000, Freeing: 200}}, Policy{Keep: Forever, Pressure: 80}, []string{"t"}, "garbage", nil},
		"pressure is not limited":           {chain, pool(950, 1000), forever, []string{"t"}, "garbage", nil},
		"it would not help": {chain, pool(9900, 10000), Policy{Keep: Forever, Pressure: 80}, []string{"t"}, "garbage",
			[]string{"pool tank is 99% full (9.668KiB of 9.766KiB), and evicting all 300B of cached templates would not bring it below 80%"}},
		"a checkpoint": {chain, []Limit{{Of: "pool tank", Used: 900, Total: 1000, Blocked: "it has a checkpoint"}}, Policy{Keep: Forever, Pressure: 80}, []string{"t"}, "garbage",
			[]string{"pool tank is 90% full (900B of 1000B), and eviction would not help: it has a checkpoint"}},
		"a quota in a pool that is blocked": {chain, []Limit{
			{Of: "pool tank", Used: 900, Total: 1000, Blocked: "it has a checkpoint"}, {Of: "quota of tank/x", Used: 900, Total: 1000},
		}, Policy{Keep: Forever, Pressure: 80}, []string{"t", "b", "c"}, "quota of tank/x is 90% full (900B of 1000B)",
			[]string{"pool tank is 90% full (900B of 1000B), and eviction would not help: it has a checkpoint"}},
		"a limit without a total":               {chain, []Limit{{Of: "x"}}, Policy{Keep: Forever, Pressure: 80}, []string{"t"}, "garbage", nil},
		"a cached template with a clone in use": {[]Node{cached("a", "", 9), used("r", "a")}, nil, Policy{All: true}, nil, "", nil},
	} {
		p := NewPlan(c.nodes, c.limits, c.policy, now)
		var names []string
		var bytes uint64
		for _, e := range p.Evict {
			names = append(names, e.Dataset)
			bytes += e.Bytes
		}
		assert.Equal(t, c.want, names, what)
		assert.Equal(t, bytes, p.Bytes, what)
		assert.Equal(t, c.problems, p.Problems, what)
		if len(p.Evict) > 0 {
			assert.Equal(t, c.reason, p.Evict[len(p.Evict)-1].Reason, what)
		}
	}
}

func TestReasonOfExpiredTemplateNamesItsAge(t *testing.T) {
	t.Parallel()
	p := NewPlan([]Node{cached("a", "", 3)}, nil, Policy{Keep: time.Hour}, now)
	assert.Equal(t, []Eviction{{cached("a", "", 3), "not used for 3h0m0s"}}, p.Evict)
}

// In any tree a plan evicts only cached templates without remaining clones, each once,
// and each is the least recently used one that could be evicted at that point.
func TestPlanIsLeastRecentlyUsedInRandomTrees(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 500 {
		nodes := randomTree(r)
		for i := range nodes {
			nodes[i].Garbage = false
			nodes[i].Cached, nodes[i].Bytes = r.IntN(3) > 0, uint64(r.IntN(100))
			nodes[i].Since = now.Add(-time.Duration(r.IntN(1000)) * time.Hour)
		}
		before := slices.Clone(nodes)
		limits := pool(uint64(r.IntN(4000)), 2000)
		policy := Policy{Keep: Forever, Pressure: 80, MaxBytes: uint64(r.IntN(3000))}
		p := NewPlan(nodes, limits, policy, now)
		require.Equal(t, before, nodes, "the nodes are not changed")
		left := make(map[string]Node)
		for _, n := range nodes {
			left[n.Dataset] = n
		}
		for _, e := range p.Evict {
			n, ok := left[e.Dataset]
			require.True(t, ok && n.Cached, e.Dataset)
			require.True(t, isLeaf(left, n), "%s has a clone that stays", e.Dataset)
			for _, other := range left {
				if other.Cached && isLeaf(left, other) {
					require.False(t, other.Since.Before(n.Since), "%s should have been evicted before %s", other.Dataset, n.Dataset)
				}
			}
			delete(left, e.Dataset)
		}
		shuffled := slices.Clone(nodes)
		r.Shuffle(len(nodes), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		require.Equal(t, p, NewPlan(shuffled, limits, policy, now), "the plan does not depend on the order of the nodes")
	}
}

// Next is the time of the next destruction for age; NextRetry is that of datasets that could
// not be destroyed.
func TestPlanSaysWhenTheNextDatasetIsDue(t *testing.T) {
	t.Parallel()
	in := func(hours int) time.Time { return now.Add(time.Duration(hours) * time.Hour) }
	stuck := func(n Node, hours int) Node { n.Retry = in(hours); return n }
	since := func(n Node, hours int) Node { n.Since = in(hours); return n }
	var never time.Time
	for what, c := range map[string]struct {
		nodes       []Node
		policy      Policy
		evicts      int
		next, retry time.Time
	}{
		"nothing":                           {nil, Policy{}, 0, never, never},
		"garbage":                           {[]Node{since(garbage("a", ""), -3), since(garbage("b", ""), -2)}, Policy{}, 2, in(-3), never},
		"garbage of a clock that was ahead": {[]Node{since(garbage("a", ""), 3)}, Policy{}, 1, now, never},
		"garbage with a clone in use":       {[]Node{since(garbage("a", ""), -3), used("r", "a")}, Policy{}, 0, never, never},
		"garbage that is stuck":             {[]Node{stuck(garbage("a", ""), 1), since(garbage("b", ""), -2)}, Policy{}, 1, in(-2), in(1)},
		"garbage on one that is stuck":      {[]Node{since(garbage("a", ""), -3), stuck(garbage("b", "a"), 1)}, Policy{}, 0, in(1), in(1)},
		"a retry that is due":               {[]Node{stuck(garbage("a", ""), -1)}, Policy{}, 1, in(-1), in(-1)},
		"a cleanup that ignores backoffs":   {[]Node{since(stuck(garbage("a", ""), 1), -3)}, Policy{Retry: true}, 1, in(-3), in(-3)},
		"a template that expires":           {[]Node{cached("a", "", 3)}, Policy{Keep: 5 * time.Hour}, 0, in(2), never},
		"an expired template":               {[]Node{cached("a", "", 3)}, Policy{Keep: 2 * time.Hour}, 1, in(-1), never},
		"an expired template that is stuck": {[]Node{stuck(cached("a", "", 3), 1)}, Policy{Keep: 2 * time.Hour}, 0, in(1), in(1)},
		"a template that never expires":     {[]Node{cached("a", "", 3)}, Policy{Keep: Forever}, 0, never, never},
		"an evicted template":               {[]Node{cached("a", "", 3)}, Policy{Keep: Forever, All: true}, 1, never, never},
		"a stuck template under pressure":   {[]Node{stuck(cached("a", "", 3), 1)}, Policy{Keep: Forever, All: true}, 0, never, never},
	} {
		p := NewPlan(c.nodes, nil, c.policy, now)
		assert.Len(t, p.Evict, c.evicts, what)
		assert.True(t, c.next.Equal(p.Next), "%s: next %s", what, p.Next)
		assert.True(t, c.retry.Equal(p.NextRetry), "%s: retry %s", what, p.NextRetry)
	}
}

func isLeaf(all map[string]Node, n Node) bool {
	for _, other := range all {
		if other.Origin == n.Dataset {
			return false
		}
	}
	return true
}

func TestFullestIgnoresBytesBeingFreed(t *testing.T) {
	t.Parallel()
	assert.Zero(t, Fullest(nil))
	limits := []Limit{{Of: "a", Used: 10, Total: 100}, {Of: "b", Used: 90, Total: 100, Freeing: 85}, {Of: "c", Used: 50, Total: 100}}
	assert.Equal(t, "c", Fullest(limits).Of)
}
