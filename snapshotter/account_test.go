package snapshotter

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/inspect"
)

// Two images share one layer and have one layer each. Cached templates, garbage and
// containers count separately, and the sum is the total.
func TestAccountsAddUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t)
		below, _ := s.pull("default", "", chain("a"), hundred)
		one, _ := s.pull("default", below, chain("b"), hundred+hundred)
		two, _ := s.pull("default", below, chain("c"), hundred)
		s.pull("k8s.io", "", chain("a"), hundred) // the same layer, one more record
		s.prepare("web", one)
		s.write("web", "0123456789")
		cached, _ := s.pull("default", one, chain("d"), hundred)
		s.remove(cached)
		s.cleanup()
		templates := map[string]string{one: s.templateOf(one), two: s.templateOf(two)}
		s.prepare("gone", two)
		s.write("gone", "12345")
		s.remove("gone")
		s.waitForRetries()
		s.flush()
		entries, err := s.inspect()
		require.NoError(t, err)
		a := inspect.Account(entries)
		assert.Equal(t, []inspect.ImageAccount{
			{Dataset: templates[one], Namespaces: []string{"default"}, Unique: 200, Shared: 100, Containers: 1},
			{Dataset: templates[two], Namespaces: []string{"default"}, Unique: 100, Shared: 100},
		}, a.Images)
		assert.Equal(t, inspect.Accounts{Images: a.Images, Templates: 400, Containers: 10, Cached: 100, Garbage: 5, Reclaimable: 105}, a)
		var total uint64
		for _, e := range entries {
			total += e.Used
		}
		assert.Equal(t, total, a.Templates+a.Containers+a.Cached+a.Garbage+a.Other)
	})
	empty := inspect.Account(nil)
	assert.Equal(t, inspect.Accounts{Images: []inspect.ImageAccount{}}, empty)
	cycle := inspect.Account([]inspect.Entry{{Dataset: "a", Parent: "b", State: inspect.Cached}, {Dataset: "b", Parent: "a", State: inspect.Cached}})
	assert.Zero(t, cycle.Reclaimable)
}
