package snapshotter

import (
	"strings"
	"testing"

	"github.com/zfstpl/zfstpl/snapshotter/inspect/invariants"
	"github.com/zfstpl/zfstpl/snapshotter/internal/record"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// invariants.Check reports a violation of each invariant and names the dataset.
func TestInvariantsNameTheDataset(t *testing.T) {
	t.Parallel()
	encoded := func(kind, name, parent string) string {
		return `1 {"seq":1,"kind":"` + kind + `","name":"` + name + `","parent":"` + parent + `"}`
	}
	empty, layer := "tank/z/storage/empty", "tank/z/storage/"+chain("a")
	first, second := record.Property+testID("1"), record.Property+testID("2")
	whole := func(props map[string]string) zfs.Dataset {
		return zfs.Dataset{Name: layer, Origin: empty + "@extracted", Snapshots: []string{"extracted"}, Props: props}
	}
	layerName := "default/3/" + chain("b")
	healed := func(kind, name, parent string) string {
		return strings.Replace(encoded(kind, name, parent), "{", `{"healed":true,`, 1)
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
		"a committed record": {whole(map[string]string{first: encoded("committed", "x", "")}), ""},
		"cached":             {whole(nil), ""},
		"an active record":   {runtime(map[string]string{first: encoded("active", "x", "")}), ""},
		"garbage":            {runtime(nil), ""},
		"no snapshot":        {zfs.Dataset{Name: layer, Origin: empty + "@extracted"}, "no @extracted"},
		"foreign origin":     {zfs.Dataset{Name: layer, Origin: "tank/mine@x", Snapshots: []string{"extracted"}}, "not a template"},
		"active on template": {whole(map[string]string{first: encoded("active", "x", "")}), "active record"},
		"no parent":          {whole(map[string]string{first: encoded("committed", "x", "gone")}), `parent "gone"`},
		"parent is a view":   {whole(map[string]string{first: encoded("committed", "x", "v"), second: encoded("view", "v", "")}), `parent "v"`},
		"no parent, a layer": {above(map[string]string{first: encoded("committed", "x", "")}), "has no parent"},
		"restored":           {above(map[string]string{first: healed("committed", layerName, "")}), ""},
		"a view of \"\"":     {above(map[string]string{first: encoded("view", "x", "")}), ""},
		"restored view":      {above(map[string]string{first: healed("view", layerName, "")}), "only the record of a layer"},
		"restored, no layer": {above(map[string]string{first: healed("committed", "x", "")}), "only the record of a layer"},
		"restored, a parent": {above(map[string]string{first: healed("committed", layerName, "default/4/"+chain("c")), second: healed("committed", "default/4/"+chain("c"), "")}), "only the record of a layer"},
		"duplicate name":     {whole(map[string]string{first: encoded("committed", "x", ""), second: encoded("view", "x", "")}), `name "x"`},
		"unreadable":         {whole(map[string]string{first: "what"}), testID("1")},
		"runtime, 2 records": {runtime(map[string]string{first: encoded("active", "x", ""), second: encoded("active", "y", "")}), "2 records"},
		"runtime, committed": {runtime(map[string]string{first: encoded("committed", "x", "")}), "1 records"},
		"not a clone":        {zfs.Dataset{Name: runtime(nil).Name}, "not a template"},
		"residue":            {zfs.Dataset{Name: runtime(nil).Name, Origin: empty + "@extracted", Snapshots: []string{"extracted"}}, "residue"},
		"foreign":            {zfs.Dataset{Name: "tank/z/storage/mine"}, "not created by zfstpl"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := newFixture(t)
			list, err := s.pool.List(s.ctx, "tank/z")
			require.NoError(t, err)
			err = invariants.Check(s.base, append(list, c.dataset))
			if c.says == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.says)
			assert.True(t, strings.Contains(err.Error(), c.dataset.Name), err)
		})
	}
}
