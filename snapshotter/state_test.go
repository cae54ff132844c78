package snapshotter

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zfstpl/zfstpl/snapshotter/internal/state"
	"github.com/zfstpl/zfstpl/snapshotter/zfs/zfsfake"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/inspect"
	"github.com/zfstpl/zfstpl/snapshotter/inspect/invariants"
	"github.com/zfstpl/zfstpl/snapshotter/internal/record"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
)

// oddDataset is a dataset as crashes, administrators and other programs leave it.
type oddDataset struct {
	name     string // below the base
	origin   string // below the base, or a snapshot elsewhere, or ""
	swapped  bool   // a template without @extracted, or a runtime with it
	props    map[string]string
	state    inspect.State
	problem  string // part of the expected problem
	kept     bool   // no start and no cleanup destroys it
	pristine bool   // recovery does not change its properties
}

const (
	activeRecord    = `1 {"seq":901,"kind":"active","name":"odd"}`
	otherActive     = `1 {"seq":902,"kind":"active","name":"odd too"}`
	committedRecord = `1 {"seq":903,"kind":"committed","name":"odd image"}`
	tornRecord      = `2 {"seq":904,"kind":"active",`
)

// marked are the properties of a runtime that a release before garbage marks were dropped
// removed.
var marked = map[string]string{layout.PropertyPrefix + "trash": "2026-01-02T03:04:05Z"}

// with returns properties with added records.
func with(props map[string]string, records ...string) map[string]string {
	props = maps.Clone(props)
	if props == nil {
		props = make(map[string]string)
	}
	for i, r := range records {
		props[record.Property+testID(fmt.Sprint(i+1))] = r
	}
	return props
}

func oddDatasets() map[string]oddDataset {
	const (
		elsewhere = "tank/mine@backup"
		empty     = "storage/empty@" + layout.Extracted
	)
	runtime := "runtime/odd-" + testID("f")
	layer, opaque := "storage/"+chain("9"), "storage/opaque-"+testID("e")
	return map[string]oddDataset{
		"a layer without a record":                       {name: layer, origin: empty, state: inspect.Cached, kept: true},
		"a layer with a mark":                            {name: layer, origin: empty, props: marked, state: inspect.Cached, kept: true},
		"a layer in use":                                 {name: layer, origin: empty, props: with(nil, committedRecord), state: inspect.Used, kept: true},
		"a layer on a foreign snapshot":                  {name: layer, origin: elsewhere, state: inspect.Foreign, problem: "is not a template", kept: true, pristine: true},
		"a layer without an origin":                      {name: layer, state: inspect.Foreign, problem: "is not a template", kept: true, pristine: true},
		"a used layer on a foreign snapshot":             {name: layer, origin: elsewhere, props: with(nil, committedRecord), state: inspect.Used, problem: "is not a template", kept: true, pristine: true},
		"a layer with a torn record":                     {name: layer, origin: empty, props: with(nil, tornRecord), state: inspect.Used, problem: "part 2 of 2", kept: true, pristine: true},
		"a layer with an active record":                  {name: layer, origin: empty, props: with(nil, activeRecord), state: inspect.Used, problem: "active snapshot", kept: true, pristine: true},
		"a layer without its snapshot":                   {name: layer, origin: empty, swapped: true, state: inspect.Partial},
		"a used layer without its snapshot":              {name: layer, origin: empty, swapped: true, props: with(nil, committedRecord), state: inspect.Used, problem: "was destroyed", kept: true, pristine: true},
		"a torn layer without its snapshot":              {name: layer, origin: empty, swapped: true, props: with(nil, tornRecord), state: inspect.Used, problem: "was destroyed", kept: true, pristine: true},
		"an opaque template without a record":            {name: opaque, origin: empty, state: inspect.Garbage},
		"an opaque template on a foreign snapshot":       {name: opaque, origin: elsewhere, state: inspect.Foreign, problem: "is not a template", kept: true, pristine: true},
		"a marked opaque template on a foreign snapshot": {name: opaque, origin: elsewhere, props: marked, state: inspect.Foreign, problem: "is not a template", kept: true, pristine: true},
		"a runtime in use":                               {name: runtime, origin: empty, props: with(nil, activeRecord), state: inspect.Used, kept: true},
		"a runtime in use and marked":                    {name: runtime, origin: empty, props: with(marked, activeRecord), state: inspect.Used, kept: true},
		"a runtime in use on a foreign snapshot":         {name: runtime, origin: elsewhere, props: with(nil, activeRecord), state: inspect.Used, kept: true},
		"a runtime without a record":                     {name: runtime, origin: empty, state: inspect.Garbage},
		"a marked runtime":                               {name: runtime, origin: empty, props: marked, state: inspect.Garbage},
		"a marked runtime on a foreign snapshot":         {name: runtime, origin: elsewhere, props: marked, state: inspect.Foreign, problem: "not a clone of a template", kept: true, pristine: true},
		"a runtime on a foreign snapshot":                {name: runtime, origin: elsewhere, state: inspect.Foreign, problem: "not a clone of a template", kept: true, pristine: true},
		"a runtime that is not a clone":                  {name: runtime, state: inspect.Foreign, problem: "not a clone of a template", kept: true, pristine: true},
		"a runtime with a torn record":                   {name: runtime, origin: empty, props: with(nil, tornRecord), state: inspect.Used, problem: "part 2 of 2", kept: true, pristine: true},
		"a marked runtime with a torn record":            {name: runtime, origin: empty, props: with(marked, tornRecord), state: inspect.Used, problem: "part 2 of 2", kept: true, pristine: true},
		"a runtime with a torn and a complete record":    {name: runtime, origin: empty, props: with(nil, tornRecord, activeRecord), state: inspect.Used, problem: "part 2 of 2", kept: true, pristine: true},
		"a torn runtime with a snapshot":                 {name: runtime, origin: empty, swapped: true, props: with(nil, tornRecord), state: inspect.Used, problem: "part 2 of 2", kept: true, pristine: true},
		"a runtime with records of two snapshots":        {name: runtime, origin: empty, props: with(nil, activeRecord, otherActive), state: inspect.Used, problem: "active snapshot only", kept: true, pristine: true},
		"a marked runtime with two records":              {name: runtime, origin: empty, props: with(marked, activeRecord, otherActive), state: inspect.Used, problem: "active snapshot only", kept: true, pristine: true},
		"a runtime with a committed record":              {name: runtime, origin: empty, props: with(nil, committedRecord), state: inspect.Used, problem: "active snapshot only", kept: true, pristine: true},
		"a runtime with the snapshot of a commit":        {name: runtime, origin: empty, swapped: true, props: with(nil, activeRecord), state: inspect.Used, kept: true},
		"a foreign dataset in storage":                   {name: "storage/mine", state: inspect.Foreign, kept: true, pristine: true},
		"a foreign clone of a template":                  {name: "storage/mine", origin: empty, state: inspect.Foreign, kept: true, pristine: true},
		"a foreign dataset with a garbage mark":          {name: "mine", props: marked, state: inspect.Foreign, kept: true, pristine: true},
	}
}

// create creates the dataset in the pool of a fixture.
func (o oddDataset) create(s *fixture) (dataset string) {
	dataset = s.base.String() + "/" + o.name
	s.pool.Edit(func(state *zfsfake.State) {
		state.TXG++
		state.Create("tank/mine", nil)
		state.Create(dataset, nil)
		fs := state.FS[dataset]
		fs.Origin, fs.Props = o.origin, maps.Clone(o.props)
		if fs.Props == nil {
			fs.Props = make(map[string]string)
		}
		if strings.HasPrefix(o.origin, "storage/") {
			fs.Origin = s.base.String() + "/" + o.origin
		}
		_, isTemplate := s.base.ParseTemplate(dataset)
		if isTemplate != o.swapped {
			fs.Snaps[layout.Extracted] = zfsfake.Snap{TXG: state.TXG}
		}
		state.FS[dataset] = fs
		mine := state.FS["tank/mine"]
		mine.Snaps["backup"] = zfsfake.Snap{TXG: state.TXG}
		state.FS["tank/mine"] = mine
	})
	return dataset
}

// Inspect, a start and a cleanup with a list agree on the state of every dataset. Garbage and
// partial datasets are destroyed, all others are kept, and a start does not change a dataset
// that it skips.
func TestAllAgreeOnTheStateOfADataset(t *testing.T) {
	t.Parallel()
	for what, o := range oddDatasets() {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := newFixture(t)
			require.NoError(t, s.sn.Close())
			dataset := o.create(s)
			list, err := s.pool.List(s.ctx, dataset)
			require.NoError(t, err)

			entries, err := s.inspect()
			require.NoError(t, err)
			entry := entries[slices.IndexFunc(entries, func(e inspect.Entry) bool { return e.Dataset == dataset })]
			assert.Equal(t, o.state, entry.State)
			assert.Equal(t, o.problem == "", entry.Problem == "", "%q", entry.Problem)
			assert.Contains(t, entry.Problem, o.problem)
			destroyed := slices.Contains([]inspect.State{inspect.Garbage, inspect.Partial}, entry.State)
			assert.Equal(t, o.kept, !destroyed, "shown as %s", entry.State)
			if entry.Problem != "" || entry.State == inspect.Foreign || entry.State == inspect.Partial {
				assert.Error(t, invariants.Check(s.base, list), "invariants.Check reports it")
			}

			may := destroyed || entry.State == inspect.Cached // expires by the time in the list
			assert.Equal(t, may, state.WhyKeep(s.base, list) == "", "offline: %q", state.WhyKeep(s.base, list))

			before := list[0].Props
			s.start()
			template := s.sn.index.Template(dataset)
			isGarbage := s.sn.index.IsGarbage(dataset) || template != nil && template.Cached() && template.IsOpaque()
			assert.Equal(t, entry.State == inspect.Garbage, isGarbage, "the start: %v", dump(s.sn))
			assert.Equal(t, entry.State == inspect.Cached, template != nil && template.Cached() && !isGarbage, "the start: %v", dump(s.sn))
			require.NoError(t, s.sn.Clean(s.ctx, nil))
			s.flush()
			assert.Equal(t, o.kept, s.has(dataset), "after a start and a cleanup\n%s", s.log)
			if o.problem != "" {
				assert.Contains(t, s.log.String(), "skipping dataset")
				assert.Contains(t, s.log.String(), o.problem)
			}
			if o.pristine {
				list, err = s.pool.List(s.ctx, dataset)
				require.NoError(t, err)
				assert.Equal(t, before, list[0].Props, "a skipped dataset is not changed")
				assert.Equal(t, o.swapped != isTemplate(s, dataset), list[0].HasSnapshot(layout.Extracted))
			}
		})
	}
}

func isTemplate(s *fixture, dataset string) bool {
	_, ok := s.base.ParseTemplate(dataset)
	return ok
}

// The datasets that a plan of evictions contains are those that a snapshotter destroys.
func TestPlanContainsOnlyDestroyableDatasets(t *testing.T) {
	t.Parallel()
	for what, o := range oddDatasets() {
		s := newFixture(t, keepCached(0))
		require.NoError(t, s.sn.Close())
		dataset := o.create(s)
		entries, err := s.inspect()
		require.NoError(t, err)
		planned := false
		for _, n := range inspect.Nodes(entries) {
			planned = planned || n.Dataset == dataset && (n.Garbage || n.Cached)
		}
		s.start()
		time.Sleep(time.Millisecond) // cached templates with a keep of zero are then expired
		require.NoError(t, s.sn.Clean(s.ctx, nil))
		if planned {
			assert.False(t, s.has(dataset), what)
		} else if o.state != inspect.Partial {
			assert.True(t, s.has(dataset), what)
		}
	}
}
