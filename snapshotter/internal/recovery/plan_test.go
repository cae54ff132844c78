package recovery

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/internal/record"
	"github.com/zfstpl/zfstpl/snapshotter/internal/state"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// FuzzPlan plans the recovery of random listings. A plan must not panic. It destroys no
// dataset that has a record, readable or not, and no dataset that zfstpl did not create.
func FuzzPlan(f *testing.F) {
	for seed := range uint64(200) {
		f.Add(seed, seed*7, `1 {"seq":9,"kind":"committed","name":"mine"}`)
	}
	f.Add(uint64(1), uint64(2), `2 {"seq":904,"kind":"active",`)
	f.Fuzz(func(t *testing.T, seed, shape uint64, value string) {
		base, err := layout.ParseBase("tank/z")
		require.NoError(t, err)
		list := randomListing(rand.New(rand.NewPCG(seed, shape)), base, value)
		plan, err := NewPlan(base, list, time.Unix(0, 0))
		if err != nil {
			return // the empty template is missing
		}
		require.NoError(t, plan.Index.Check())
		requireNothingLost(t, base, list, plan)
	})
}

// requireNothingLost requires that neither the plan nor the cleanup that follows it destroys
// a dataset that must be kept.
func requireNothingLost(t *testing.T, base layout.Base, list []zfs.Dataset, plan *Plan) {
	t.Helper()
	var doomed []string
	doomed = append(doomed, plan.partials...)
	for _, r := range plan.Index.Removable(time.Unix(0, 0)) {
		doomed = append(doomed, r.Dataset)
	}
	removed := make(map[string]bool) // properties of records that are removed with good reason
	for _, ops := range slices.Concat(plan.Removals, plan.Repairs) {
		for _, op := range ops {
			removed[op.Dataset()] = true
		}
	}
	for _, d := range list {
		if !slices.Contains(doomed, d.Name) {
			continue
		}
		st := state.Classify(base, d)
		require.NotEqual(t, state.Foreign, st.State, "%s is destroyed", d.Name)
		require.Empty(t, st.Problem, "%s is destroyed", d.Name)
		// A newer record with the same name, or the committed record of the same commit, is
		// why a record of a doomed dataset is removed.
		for _, r := range st.Records {
			require.True(t, removed[d.Name], "%s is destroyed with the record %q", d.Name, r.Info.Name)
			require.True(t, plan.Index.Taken(r.Info.Name) || completed(list, r), "the name %q is lost with %s", r.Info.Name, d.Name)
		}
	}
}

// completed reports whether a committed record was made from the active record r, or from a
// newer one with the same name.
func completed(list []zfs.Dataset, r *record.Record) bool {
	var all []*record.Record
	for _, d := range list {
		records, _ := record.Read(d)
		all = append(all, records...)
	}
	return slices.ContainsFunc(all, func(newer *record.Record) bool {
		return newer.Info.Name == r.Info.Name && newer.Seq >= r.Seq &&
			slices.ContainsFunc(all, func(c *record.Record) bool { return c.From == newer.ID.String() })
	})
}

// randomListing returns a listing of a base with datasets of all kinds: templates, runtimes,
// foreign ones, with and without snapshots, origins and records. value is the first part of
// some records.
func randomListing(r *rand.Rand, base layout.Base, value string) []zfs.Dataset {
	list := []zfs.Dataset{
		{Name: base.String()}, {Name: base.Storage()}, {Name: base.Runtime()},
		{Name: base.Empty().Dataset(), Snapshots: []string{layout.Extracted}, CreateTXG: 1},
	}
	names := []string{"tank/mine", base.Storage() + "/mine", base.Empty().Dataset()}
	for i := range r.IntN(6) {
		names = append(names, base.Storage()+"/sha256:"+strings.Repeat(fmt.Sprint(i), 64), base.Storage()+"/opaque-"+fixedID(i),
			base.Runtime()+"/web-"+fixedID(i), base.Runtime()+"/"+fmt.Sprint(i))
	}
	for _, name := range names[1:] {
		if name == base.Empty().Dataset() || r.IntN(4) == 0 {
			continue
		}
		d := zfs.Dataset{Name: name, CreateTXG: r.Uint64N(20), Props: make(map[string]string), Mountpoint: []string{"legacy", "/x", ""}[r.IntN(3)]}
		if r.IntN(4) > 0 {
			d.Origin = names[r.IntN(len(names))] + "@" + []string{layout.Extracted, "backup"}[r.IntN(5)/4]
		}
		if r.IntN(2) == 0 {
			d.Snapshots = append(d.Snapshots, layout.Extracted)
		}
		if r.IntN(5) == 0 {
			d.Snapshots = append(d.Snapshots, zfs.TemporaryPrefix+"x", "daily")
		}
		for range r.IntN(3) {
			randomRecord(r, d.Props, value)
		}
		list = append(list, d)
	}
	r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list
}

func fixedID(i int) string { return fmt.Sprintf("%016x", i+1) }

// randomRecord adds a record to the properties of a dataset: a readable one, value, or a part
// without its first.
func randomRecord(r *rand.Rand, props map[string]string, value string) {
	id := r.IntN(12)
	prop := record.Property + fixedID(id)
	switch r.IntN(8) {
	case 0:
		props[prop] = value
	case 1:
		props[prop+":1"] = value
	default:
		from := ""
		if r.IntN(3) == 0 {
			from = fixedID(r.IntN(12))
		}
		props[prop] = fmt.Sprintf(`1 {"seq":%d,"kind":%q,"name":"n%d","parent":%q,"from":%q}`, r.IntN(30),
			[]string{"active", "committed", "view"}[r.IntN(3)], r.IntN(5), []string{"", "n1", "n2"}[r.IntN(3)], from)
	}
}
