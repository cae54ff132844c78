package recordlog

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

func contentsOf(groups ...[]zfs.Op) *Contents {
	c := &Contents{ID: 7, Start: 100}
	for i, ops := range groups {
		c.Entries = append(c.Entries, Entry{101 + uint64(i), ops})
	}
	return c
}

func TestReplayAppliesTheLastChange(t *testing.T) {
	t.Parallel()
	const web, gone = "tank/z/runtime/web", "tank/z/runtime/gone"
	list := []zfs.Dataset{{Name: web, Props: map[string]string{"zfstpl:old": "1", "zfstpl:kept": "2"}}, {Name: "tank/z/runtime/other"}}
	missing := Replay(list, contentsOf(
		[]zfs.Op{zfs.Set(web, "zfstpl:a", "1"), zfs.Inherit(web, "zfstpl:old")},
		[]zfs.Op{zfs.Set(gone, "zfstpl:a", "1")},
		[]zfs.Op{zfs.Set(web, "zfstpl:kept", "2"), zfs.Set(web, "zfstpl:b", "1")},
		[]zfs.Op{zfs.Inherit(web, "zfstpl:b"), zfs.Set(web, "zfstpl:a", "2")},
	))
	assert.Equal(t, map[string]string{"zfstpl:a": "2", "zfstpl:kept": "2"}, list[0].Props)
	assert.Nil(t, list[1].Props)
	assert.Equal(t, [][]zfs.Op{{zfs.Inherit(web, "zfstpl:old"), zfs.Set(web, "zfstpl:a", "2")}}, missing,
		"what the pool has already is not written again")
}

// A transaction that changed a dataset itself is not reverted.
func TestReplaySkipsWhatATransactionSuperseded(t *testing.T) {
	t.Parallel()
	const web = "tank/z/runtime/web"
	log := contentsOf([]zfs.Op{zfs.Set(web, "zfstpl:a", "1")}, []zfs.Op{zfs.Set(web, "zfstpl:b", "1")})
	for what, test := range map[string]struct {
		applied Position
		want    []string
	}{
		"all":            {Position{7, 102}, nil},
		"the first":      {Position{7, 101}, []string{"zfstpl:b"}},
		"none":           {Position{7, 100}, []string{"zfstpl:a", "zfstpl:b"}},
		"of another log": {Position{6, 900}, []string{"zfstpl:a", "zfstpl:b"}},
	} {
		list := []zfs.Dataset{{Name: web, Props: map[string]string{AppliedProperty: test.applied.String()}}}
		Replay(list, log)
		delete(list[0].Props, AppliedProperty)
		assert.Equal(t, test.want, slices.Sorted(maps.Keys(list[0].Props)), what)
	}
}

// Whatever prefix of the changes the pool has, a replay gives the same state, and a second
// replay changes nothing.
func TestReplayIsIdempotentAfterEveryPrefix(t *testing.T) {
	t.Parallel()
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		var changes [][]zfs.Op
		names := []string{"tank/z/runtime/a", "tank/z/runtime/b"}
		for range 1 + r.IntN(12) {
			var ops []zfs.Op
			for range 1 + r.IntN(3) {
				name, prop := names[r.IntN(2)], []string{"zfstpl:x", "zfstpl:y", "zfstpl:z"}[r.IntN(3)]
				if r.IntN(3) == 0 {
					ops = append(ops, zfs.Inherit(name, prop))
				} else {
					ops = append(ops, zfs.Set(name, prop, string(rune('a'+r.IntN(3)))))
				}
			}
			changes = append(changes, ops)
		}
		log := contentsOf(changes...)
		var want []zfs.Dataset
		for copied := range len(changes) + 1 {
			list := []zfs.Dataset{{Name: names[0]}, {Name: names[1]}}
			Replay(list, contentsOf(changes[:copied]...)) // what the background writer copied
			missing := Replay(list, log)
			if want == nil {
				want = list
			}
			for i := range list {
				require.True(t, maps.Equal(want[i].Props, list[i].Props), "seed %d, %d copied", seed, copied)
			}
			require.Empty(t, Replay(list, log), "seed %d", seed)
			if copied == len(changes) {
				require.Empty(t, missing, "seed %d", seed)
			}
		}
	}
}
