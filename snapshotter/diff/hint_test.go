//go:build linux

package diff

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// An object counts as changed if it is in a range that is in use, whatever the order
// and overlaps of the ranges are.
func TestChangedReportsObjectsInRanges(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(*seed, 1))
	for range 200 {
		var ranges []zfs.ObjectRange
		want := make(map[uint64]bool)
		for range r.IntN(20) {
			first := r.Uint64N(100)
			one := zfs.ObjectRange{First: first, Last: first + r.Uint64N(10), Free: r.IntN(3) == 0}
			ranges = append(ranges, one)
			for o := one.First; o <= one.Last && !one.Free; o++ {
				want[o] = true
			}
		}
		ranges = append(ranges, zfs.ObjectRange{First: 0, Last: math.MaxUint64 - 1, Free: true})
		h := hint{ranges: inUse(ranges), known: true}
		for o := range uint64(120) {
			assert.Equal(t, want[o], h.changed(o), "seed %d: %d in %v", *seed, o, ranges)
		}
		assert.Equal(t, uint64(len(want)), count(h.ranges))
	}
	assert.True(t, hintAll().changed(7))
	assert.False(t, hint{known: true}.changed(7))
}

func TestPathsHasThePathsThatWereAdded(t *testing.T) {
	t.Parallel()
	p := &paths{}
	for _, path := range []string{"/", "/a/b", "/a/c/d", "/e"} {
		p.add(path)
	}
	assert.Equal(t, []string{"a", "e"}, p.names())
	assert.Equal(t, []string{"b", "c"}, p.child("a").names())
	assert.Nil(t, p.child("x"))
	assert.Nil(t, p.child("x").child("y"))
	assert.Nil(t, p.child("e").child("f"))
	all := hintAll().paths
	assert.Same(t, all, all.child("x"))
}

// known is what ZFS returns for some objects. Any other object exists.
type known map[uint64]zfs.Object

func (k known) ChangedObjects(context.Context, string, string) (list []zfs.ObjectRange, err error) {
	for object := range k {
		list = append(list, zfs.ObjectRange{First: object, Last: object})
	}
	return list, nil
}

func (k known) Object(_ context.Context, _ string, object uint64) (zfs.Object, error) {
	is, ok := k[object]
	switch {
	case !ok:
		return zfs.Object{Generation: 1, Links: 1}, nil
	case is.Generation == 0:
		return zfs.Object{}, &zfs.Error{Kind: zfs.ErrNotFound}
	}
	return is, nil
}

// A path from ZFS is used only if it leads to the object. If a path is uncertain, all
// directories are read; if extended attributes are objects, everything is compared.
func TestNarrowUsesOnlyCertainPaths(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "a/file", "b/file", "b/(on_delete_queue)")
	require.NoError(t, os.Link(filepath.Join(dir, "a/file"), filepath.Join(dir, "linked")))
	tree := treeAt(t, dir)
	object := func(rel string) uint64 {
		n, err := tree.stat(rel)
		require.NoError(t, err)
		return n.object
	}
	file := func(path string, links uint64) zfs.Object {
		return zfs.Object{Generation: 7, Mode: typeRegular, Links: links, Path: path}
	}
	for what, c := range map[string]struct {
		objects known
		want    []string // nil: all
		unknown bool     // not even which objects changed
	}{
		"a path":                    {known{object("b/file"): file("/b/file", 1)}, []string{"b"}, false},
		"a directory":               {known{object("b"): {Generation: 7, Mode: typeDir, Links: 9, Path: "/b"}}, []string{"b"}, false},
		"the root":                  {known{object("."): {Generation: 7, Mode: typeDir, Links: 9, Path: "/"}}, []string{}, false},
		"an internal object of ZFS": {known{object("b/file"): file("/b/file", 1), 1 << 40: {}}, []string{"b"}, false},
		"a deleted file":            {known{object("b/file"): file("/b/(on_delete_queue)", 0)}, []string{}, false},
		"several names, unchanged":  {known{object("linked"): file("/linked", 2)}, []string{}, false},
		"a name that was removed":   {known{1 << 40: file("/b/gone", 1)}, []string{}, false},
		"an attribute as an object": {known{1 << 40: file("/b/file/<xattrdir>/user.x", 1)}, nil, true},
	} {
		h, err := narrow(t.Context(), c.objects, tree, tree)
		require.NoError(t, err, what)
		assert.Equal(t, !c.unknown, h.known, what)
		assert.True(t, h.related, "%s: ZFS returns ranges only for related sides", what)
		assert.Equal(t, c.want == nil, h.paths.all, what)
		if c.want != nil {
			assert.ElementsMatch(t, c.want, h.paths.names(), what)
		}
	}
	// The same if the object has another change time on the lower side.
	linked := known{object("linked"): file("/linked", 2)}
	h, err := narrow(t.Context(), changing{linked}, tree, &treeWithName(t, dir, "upper").tree)
	require.NoError(t, err)
	assert.True(t, h.known && h.paths.all, "several names, changed")

	_, err = narrow(t.Context(), failing{}, tree, tree)
	assert.ErrorIs(t, err, errFailing)
}

// Only two objects of a directory are looked up: each lookup searches the directory.
func TestNarrowLooksUpTwoObjectsOfADirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	tree := treeAt(t, dir)
	objects := &counted{known: known{}}
	for i := range 60 {
		rel := fmt.Sprintf("large/%d", i)
		write(t, dir, rel)
		n, err := tree.stat(rel)
		require.NoError(t, err)
		objects.known[n.object] = zfs.Object{Generation: 7, Mode: typeRegular, Links: 1, Path: "/" + rel}
	}
	h, err := narrow(t.Context(), objects, tree, tree)
	require.NoError(t, err)
	assert.Len(t, h.paths.child("large").names(), 60)
	assert.Equal(t, 2, objects.asked)
	assert.Equal(t, uint64(math.MaxUint64), count([]zfs.ObjectRange{{First: 0, Last: math.MaxUint64}}), "more than are looked up")
}

// counted counts the lookups.
type counted struct {
	known
	asked int
}

func (c *counted) Object(ctx context.Context, snapshot string, object uint64) (zfs.Object, error) {
	c.asked++
	return c.known.Object(ctx, snapshot, object)
}

func treeWithName(t *testing.T, dir, name string) *side {
	s := &side{tree: *treeAt(t, dir)}
	s.name = name
	return s
}

// changing returns another change time for objects of the snapshot "upper".
type changing struct{ known }

func (c changing) Object(ctx context.Context, snapshot string, object uint64) (zfs.Object, error) {
	o, err := c.known.Object(ctx, snapshot, object)
	if snapshot == "upper" {
		o.Changed = o.Changed.AddDate(1, 0, 0)
	}
	return o, err
}

var errFailing = errors.New("no")

type failing struct{ known }

func (failing) ChangedObjects(context.Context, string, string) ([]zfs.ObjectRange, error) {
	return nil, errFailing
}

// The number of lookups is bounded: with many changes, directories are read instead.
func TestNarrowBoundsTheLookups(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	tree := treeAt(t, dir)
	many := asked{ranges: []zfs.ObjectRange{{First: 1, Last: maxPaths + 1}}}
	h, err := narrow(t.Context(), &many, tree, tree)
	require.NoError(t, err)
	assert.True(t, h.paths.all)
	assert.Zero(t, many.asked)
	few := asked{ranges: []zfs.ObjectRange{{First: 1, Last: fewObjects}}}
	_, err = narrow(t.Context(), &few, tree, tree)
	require.NoError(t, err)
	assert.Equal(t, fewObjects+1, few.asked, "one more lookup checks the snapshot, because no object was found")
}

type asked struct {
	ranges []zfs.ObjectRange
	asked  int
}

func (a *asked) ChangedObjects(context.Context, string, string) ([]zfs.ObjectRange, error) {
	return a.ranges, nil
}

func (a *asked) Object(context.Context, string, uint64) (zfs.Object, error) {
	a.asked++
	return zfs.Object{}, &zfs.Error{Kind: zfs.ErrNotFound}
}

// renamed is a snapshot that is renamed after some lookups.
type renamed struct {
	known
	after int
}

func (r *renamed) Object(ctx context.Context, snapshot string, object uint64) (zfs.Object, error) {
	if r.after--; r.after < 0 && snapshot == "upper" {
		return zfs.Object{}, &zfs.Error{Op: "object", Dataset: snapshot, Kind: zfs.ErrNotFound}
	}
	return r.known.Object(ctx, snapshot, object)
}

// No object of a renamed snapshot is found. That says nothing about the objects, so
// all directories are read.
func TestNarrowReadsAllDirectoriesOfARenamedSnapshot(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "a/file", "b/file")
	lower, upper := treeAt(t, dir), treeAt(t, dir)
	upper.name = "upper"
	n, err := upper.stat("b/file")
	require.NoError(t, err)
	objects := known{n.object: {Generation: 7, Mode: typeRegular, Links: 1, Path: "/b/file"}}
	for after, all := range []bool{true, false} {
		h, err := narrow(t.Context(), &renamed{objects, after}, lower, upper)
		require.NoError(t, err)
		assert.Equal(t, all, h.paths.all, "after %d lookups", after)
		assert.True(t, h.changed(n.object))
	}
}
