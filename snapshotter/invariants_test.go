package snapshotter

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// Each invariant can fail, and says on what.
func TestInvariantsCanFail(t *testing.T) {
	t.Parallel()
	record := func(kind, name, parent string) string {
		return `1 {"seq":1,"kind":"` + kind + `","name":"` + name + `","parent":"` + parent + `"}`
	}
	empty, layer := "tank/z/storage/empty", "tank/z/storage/"+chain("a")
	first, second := propRecord+testID("1"), propRecord+testID("2")
	whole := func(props map[string]string) zfs.Dataset {
		return zfs.Dataset{Name: layer, Origin: empty + "@extracted", Snapshots: []string{"extracted"}, Props: props}
	}
	layerName := "default/3/" + chain("b")
	healed := func(kind, name, parent string) string {
		return strings.Replace(record(kind, name, parent), "{", `{"healed":true,`, 1)
	}
	above := func(props map[string]string) zfs.Dataset {
		return zfs.Dataset{Name: "tank/z/storage/" + chain("b"), Origin: layer + "@extracted", Snapshots: []string{"extracted"}, Props: props}
	}
	runtime := func(props map[string]string) zfs.Dataset {
		return zfs.Dataset{Name: "tank/z/runtime/web-" + testID("1"), Origin: empty + "@extracted", Props: props}
	}
	for what, c := range map[string]struct {
		dataset zfs.Dataset
		says    string
	}{
		"all is well":        {whole(map[string]string{first: record("committed", "x", "")}), ""},
		"warm":               {whole(nil), ""},
		"an active one":      {runtime(map[string]string{first: record("active", "x", "")}), ""},
		"trash":              {runtime(map[string]string{propGarbage: "2025-01-01T00:00:00Z"}), ""},
		"no snapshot":        {zfs.Dataset{Name: layer, Origin: empty + "@extracted"}, "no @extracted"},
		"no template's":      {zfs.Dataset{Name: layer, Origin: "tank/mine@x", Snapshots: []string{"extracted"}}, "not a template"},
		"active there":       {whole(map[string]string{first: record("active", "x", "")}), "active record"},
		"no parent":          {whole(map[string]string{first: record("committed", "x", "gone")}), `parent "gone"`},
		"parent is a view":   {whole(map[string]string{first: record("committed", "x", "v"), second: record("view", "v", "")}), `parent "v"`},
		"no parent, a layer": {above(map[string]string{first: record("committed", "x", "")}), "has no parent"},
		"restored":           {above(map[string]string{first: healed("committed", layerName, "")}), ""},
		"a view of nothing":  {above(map[string]string{first: record("view", "x", "")}), ""},
		"restored view":      {above(map[string]string{first: healed("view", layerName, "")}), "only the record of a layer"},
		"restored, no layer": {above(map[string]string{first: healed("committed", "x", "")}), "only the record of a layer"},
		"restored, a parent": {above(map[string]string{first: healed("committed", layerName, "default/4/"+chain("c")), second: healed("committed", "default/4/"+chain("c"), "")}), "only the record of a layer"},
		"a name twice":       {whole(map[string]string{first: record("committed", "x", ""), second: record("view", "x", "")}), `name "x"`},
		"unreadable":         {whole(map[string]string{first: "what"}), testID("1")},
		"runtime of nobody":  {runtime(nil), "0 records"},
		"runtime of two":     {runtime(map[string]string{first: record("active", "x", ""), second: record("active", "y", "")}), "2 records"},
		"runtime, committed": {runtime(map[string]string{first: record("committed", "x", "")}), "1 records"},
		"trash of somebody":  {runtime(map[string]string{first: record("active", "x", ""), propGarbage: "x"}), "garbage mark"},
		"no clone":           {zfs.Dataset{Name: runtime(nil).Name, Props: map[string]string{propGarbage: "x"}}, "not a template"},
		"stray": {zfs.Dataset{Name: runtime(nil).Name, Origin: empty + "@extracted", Snapshots: []string{"extracted"},
			Props: map[string]string{propGarbage: "x"}}, "residue"},
		"a stranger": {zfs.Dataset{Name: "tank/z/storage/mine"}, "not created by zfstpl"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := newFixture(t)
			list, err := s.pool.List(s.ctx, "tank/z")
			require.NoError(t, err)
			err = CheckInvariants(s.base, append(list, c.dataset))
			if c.says == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.says)
			assert.True(t, strings.Contains(err.Error(), c.dataset.Name), err)
		})
	}
}
