//go:build linux

package diff

import (
	"archive/tar"
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/containerd/continuity/fs"
	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/zfstpl/zfstpl/integration/randtree"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

var (
	seed   = flag.Uint64("diff.seed", rand.Uint64(), "seed of the random trees")
	rounds = flag.Int("diff.rounds", 60, "number of random trees to compare")
)

// treeAt opens a directory as a snapshot of that name.
func treeAt(t *testing.T, dir string) *tree {
	t.Helper()
	f, err := os.Open(dir)
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	return &tree{root: f, name: dir}
}

// layerOf returns the layer between two directories, or of all of upper if lower is
// "".
func layerOf(t *testing.T, lower, upper string, epoch *time.Time) []byte {
	t.Helper()
	var out bytes.Buffer
	to := treeAt(t, upper)
	l := newLayer(t.Context(), &out, to, epoch)
	c := comparison{ctx: t.Context(), upper: to, hint: hintAll(), to: l}
	if lower != "" {
		c.lower = treeAt(t, lower)
	}
	require.NoError(t, c.run())
	require.NoError(t, l.close())
	return out.Bytes()
}

func apply(t *testing.T, layer []byte, root string) {
	t.Helper()
	_, err := archive.Apply(t.Context(), root, bytes.NewReader(layer))
	require.NoError(t, err)
}

func read(t *testing.T, root string) map[string]string {
	t.Helper()
	tree, err := randtree.Read(root)
	require.NoError(t, err)
	return tree
}

// changeSet collects changes by path.
type changeSet map[string]Kind

func (s changeSet) changed(kind Kind, rel string, _ node) error {
	if rel != "." {
		s["/"+rel] = kind
	}
	return nil
}

func (s changeSet) deleted(dir string, names []string, _ bool) error {
	for _, name := range names {
		s[path.Join("/", dir, name)] = Deleted
	}
	return nil
}

func compare(t *testing.T, lower, upper string) changeSet {
	t.Helper()
	found := make(changeSet)
	c := comparison{ctx: t.Context(), lower: treeAt(t, lower), upper: treeAt(t, upper), hint: hintAll(), to: found}
	require.NoError(t, c.run())
	return found
}

// For any edits of a tree, applying the layer to a copy of the earlier tree gives the
// later tree, in everything that a layer can hold. The changes are those of
// containerd's own comparison, or more.
func TestLayerReproducesTheTree(t *testing.T) {
	t.Parallel()
	t.Logf("-diff.seed %d", *seed)
	for i := range *rounds {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			lower, upper, copied := filepath.Join(dir, "lower"), filepath.Join(dir, "upper"), filepath.Join(dir, "copy")
			for _, d := range []string{lower, upper, copied} {
				require.NoError(t, os.Mkdir(d, 0o755))
			}
			tree := randtree.New(lower, *seed+uint64(i))
			defer tree.Close()
			require.NoError(t, tree.Grow(20))
			whole := layerOf(t, "", lower, nil)
			apply(t, whole, upper)
			apply(t, whole, copied)
			require.Empty(t, randtree.Differences(read(t, lower), read(t, upper)), "the layer of the whole tree")
			assert.Empty(t, slices.DeleteFunc(tar2names(t, layerOf(t, lower, upper, nil)), linkedIn(t, lower)), "without changes the layer is empty")

			tree.At(upper)
			require.NoError(t, tree.Edit(30))
			layer := layerOf(t, lower, upper, nil)
			assert.Equal(t, layer, layerOf(t, lower, upper, nil), "the layer is reproducible")
			apply(t, layer, copied)
			if lines := randtree.Differences(read(t, upper), read(t, copied)); len(lines) > 0 {
				t.Errorf("seed %d:\n%s\nafter\n%s", *seed+uint64(i), strings.Join(lines, "\n"), strings.Join(tree.Done, "\n"))
			}
			requireContinuity(t, lower, upper)
		})
	}
}

// linkedIn returns a function that reports whether a name of a layer is of an object
// with several names, or a directory above one. Two separate directories share no
// objects, so those count as changed.
func linkedIn(t *testing.T, root string) func(string) bool {
	linked := make(map[string]bool)
	for name, s := range read(t, root) {
		if strings.Contains(s, " names ") {
			for dir := name; dir != "/"; dir = path.Dir(dir) {
				linked[dir[1:]] = true
			}
		}
	}
	return func(name string) bool { return linked[strings.TrimSuffix(name, "/")] }
}

// requireContinuity compares the changes with those of containerd's own comparison.
// That one ignores the times of directories, most attributes, and the other names of
// an object.
func requireContinuity(t *testing.T, lower, upper string) {
	t.Helper()
	theirs := make(changeSet)
	err := fs.Changes(t.Context(), lower, upper, func(kind fs.ChangeKind, name string, i os.FileInfo, err error) error {
		switch {
		case err != nil:
			return err
		case i != nil && i.Mode()&os.ModeSocket != 0: // a layer cannot hold it
			if kind == fs.ChangeKindModify && !wasSocket(lower, name) {
				theirs[name] = Deleted
			}
		case kind == fs.ChangeKindAdd:
			theirs[name] = Added
		case kind == fs.ChangeKindModify:
			theirs[name] = Modified
		case kind == fs.ChangeKindDelete:
			theirs[name] = Deleted
		}
		return nil
	})
	require.NoError(t, err)
	ours := compare(t, lower, upper)
	was, is := read(t, lower), read(t, upper)
	var replaced []string
	for _, name := range slices.Sorted(maps.Keys(ours)) {
		if ours[name] == Replaced {
			replaced = append(replaced, name)
		}
		if theirs[name] != ours[name] && slices.ContainsFunc(replaced, func(dir string) bool { return inside(name, dir) }) {
			continue // all of its content is reported
		}
		if ours[name] == Modified && theirs[name] == "" {
			if strings.Contains(was[name]+is[name], " names ") {
				continue
			}
			assert.NotEqual(t, was[name], is[name], "%s is reported as modified", name)
			continue
		}
		if theirs[name] == "" && wasSocket(lower, name) {
			continue
		}
		assert.Equal(t, theirs[name], ours[name], name)
	}
	for _, name := range slices.Sorted(maps.Keys(theirs)) {
		if slices.ContainsFunc(replaced, func(dir string) bool { return inside(name, dir) }) {
			continue
		}
		if ours[name] == "" && (wasSocket(lower, name) || was[name] == is[name]) {
			continue
		}
		assert.Equal(t, theirs[name], ours[name], name)
	}
}

func wasSocket(root, name string) bool {
	i, err := os.Lstat(root + name)
	return err == nil && i.Mode()&os.ModeSocket != 0
}

func tar2names(t *testing.T, layer []byte) (names []string) {
	t.Helper()
	for _, h := range headers(t, layer) {
		names = append(names, h.Name)
	}
	return names
}

func headers(t *testing.T, layer []byte) (list []*tar.Header) {
	t.Helper()
	r := tar.NewReader(bytes.NewReader(layer))
	for {
		h, err := r.Next()
		if err == io.EOF {
			return list
		}
		require.NoError(t, err)
		list = append(list, h)
	}
}

// pairOf creates a directory and a copy of it to change.
func pairOf(t *testing.T, make func(root string)) (lower, upper string) {
	t.Helper()
	dir := t.TempDir()
	lower, upper = filepath.Join(dir, "lower"), filepath.Join(dir, "upper")
	require.NoError(t, os.Mkdir(lower, 0o755))
	require.NoError(t, os.Mkdir(upper, 0o755))
	make(lower)
	apply(t, layerOf(t, "", lower, nil), upper)
	return lower, upper
}

func write(t *testing.T, root string, names ...string) {
	t.Helper()
	for _, name := range names {
		full := filepath.Join(root, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(full), 0o755))
		require.NoError(t, os.WriteFile(full, []byte(name), 0o644))
	}
}

func remove(t *testing.T, root string, names ...string) {
	t.Helper()
	for _, name := range names {
		require.NoError(t, os.RemoveAll(filepath.Join(root, name)))
	}
}

// A layer has the expected entries in the expected order.
func TestLayerHasTheExpectedEntries(t *testing.T) {
	t.Parallel()
	base := []string{"etc/a", "etc/b", "etc/c", "usr/lib/x", "usr/lib/y", "usr/one", "var/deep/er/f"}
	for what, c := range map[string]struct {
		edit func(t *testing.T, root string)
		want []string
	}{
		"nothing": {func(*testing.T, string) {}, nil},
		"a new file, after its parent directories": {
			func(t *testing.T, root string) { write(t, root, "var/deep/er/g") },
			[]string{"var/", "var/deep/", "var/deep/er/", "var/deep/er/g"}},
		"a deleted file, before its siblings": {
			func(t *testing.T, root string) { remove(t, root, "etc/b"); write(t, root, "etc/0") },
			[]string{"etc/", "etc/.wh.b", "etc/0"}},
		"a deleted tree is one whiteout": {
			func(t *testing.T, root string) { remove(t, root, "usr/lib") },
			[]string{"usr/", "usr/.wh.lib"}},
		"a directory that lost all names is opaque": {
			func(t *testing.T, root string) { remove(t, root, "etc/a", "etc/b", "etc/c"); write(t, root, "etc/d") },
			[]string{"etc/", "etc/.wh..wh..opq", "etc/d"}},
		// overlayfs ignores an opaque mark in the root of a layer.
		"a root that lost all names is not opaque": {
			func(t *testing.T, root string) { remove(t, root, "etc", "usr", "var"); write(t, root, "new") },
			[]string{".wh.etc", ".wh.usr", ".wh.var", "new"}},
		"a directory that lost its only name": {
			func(t *testing.T, root string) { remove(t, root, "var/deep") },
			[]string{"var/", "var/.wh.deep"}},
		"a file in place of a directory": {
			func(t *testing.T, root string) { remove(t, root, "usr/lib"); write(t, root, "usr/lib") },
			[]string{"usr/", "usr/lib"}},
		"a directory in place of a file": {
			func(t *testing.T, root string) { remove(t, root, "usr/one"); write(t, root, "usr/one/in") },
			[]string{"usr/", "usr/one/", "usr/one/in"}},
		"a directory in place of another": {
			func(t *testing.T, root string) { remove(t, root, "usr/lib"); write(t, root, "usr/lib/y", "usr/lib/z") },
			[]string{"usr/", "usr/lib/", "usr/lib/.wh.x", "usr/lib/y", "usr/lib/z"}},
		"a renamed tree": {
			func(t *testing.T, root string) {
				require.NoError(t, os.Rename(filepath.Join(root, "usr/lib"), filepath.Join(root, "usr/lib64")))
			},
			[]string{"usr/", "usr/.wh.lib", "usr/lib64/", "usr/lib64/x", "usr/lib64/y"}},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			lower, upper := pairOf(t, func(root string) { write(t, root, base...) })
			c.edit(t, upper)
			assert.Equal(t, c.want, tar2names(t, layerOf(t, lower, upper, nil)))
		})
	}
}

// A socket is in no layer, however the comparison finds it.
func TestLayerOmitsSockets(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	lower, upper := pairOf(t, func(string) {})
	for _, root := range []string{lower, upper} {
		require.NoError(t, unix.Mknod(filepath.Join(root, "socket"), unix.S_IFSOCK|0o600, 0))
	}
	require.NoError(t, os.Chmod(filepath.Join(upper, "socket"), 0o666))
	from, to := treeAt(t, lower), treeAt(t, upper)
	n, err := to.stat("socket")
	require.NoError(t, err)
	root, err := to.stat(".")
	require.NoError(t, err)
	found := &paths{}
	found.add("/socket")
	for what, at := range map[string]*paths{"by its path": found, "in its directory": {all: true}} {
		h := hint{known: true, related: true, ranges: []zfs.ObjectRange{{First: n.object, Last: n.object}}, paths: at}
		l := newLayer(t.Context(), io.Discard, to, nil)
		c := comparison{ctx: t.Context(), lower: from, upper: to, hint: h, to: l}
		same := direntry{".", root.object, true} // in ZFS the root has the same number on both sides
		require.NoError(t, c.pair(".", same, same, h.paths), what)
	}
}

// A name that a layer would take for a whiteout is refused.
func TestWhiteoutNamesAreRefused(t *testing.T) {
	t.Parallel()
	for _, name := range []string{".wh.etc", "dir/.wh..wh..opq", ".wh.", ".wh..wh.plnk/1"} {
		dir := t.TempDir()
		write(t, dir, name)
		to := treeAt(t, dir)
		l := newLayer(t.Context(), io.Discard, to, nil)
		err := (&comparison{ctx: t.Context(), upper: to, hint: hintAll(), to: l}).run()
		assert.ErrorContains(t, err, "cannot be part of an image", name)
	}
}

// The deletion of such a name is refused too: the whiteout of ".wh..opq" would mark
// the directory as opaque and delete the siblings.
func TestDeletedWhiteoutNamesAreRefused(t *testing.T) {
	t.Parallel()
	for _, name := range []string{".wh..opq", ".wh.x"} {
		dir := t.TempDir()
		lower, upper := filepath.Join(dir, "lower"), filepath.Join(dir, "upper")
		write(t, lower, "sibling", name)
		write(t, upper, "sibling")
		to := treeAt(t, upper)
		l := newLayer(t.Context(), io.Discard, to, nil)
		err := (&comparison{ctx: t.Context(), lower: treeAt(t, lower), upper: to, hint: hintAll(), to: l}).run()
		assert.ErrorContains(t, err, "cannot be part of an image", name)
	}
}

// If one name of an object is written, all are: an applier replaces the name that it
// writes. The unchanged names come last.
func TestAllNamesOfALinkedObjectAreWritten(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "b/first", "other")
	for _, name := range []string{"a/third", "b/second"} {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		require.NoError(t, os.Link(filepath.Join(dir, "b/first"), filepath.Join(dir, name)))
	}
	to := treeAt(t, dir)
	n, err := to.stat("b/second")
	require.NoError(t, err)
	var out bytes.Buffer
	l := newLayer(t.Context(), &out, to, nil)
	require.NoError(t, l.changed(Added, "b/second", n))
	require.NoError(t, l.close())
	assert.Equal(t, []string{"b/", "b/second", "a/", "a/third", "b/", "b/first"}, tar2names(t, out.Bytes()))
	for _, h := range headers(t, out.Bytes())[3:] {
		if h.Typeflag != tar.TypeDir {
			assert.Equal(t, "b/second", h.Linkname, h.Name)
		}
	}
}

// Times have nanoseconds. An epoch bounds them, as for reproducible builds; whiteouts
// have time 0.
func TestEpochBoundsTheTimesInALayer(t *testing.T) {
	t.Parallel()
	lower, upper := pairOf(t, func(root string) { write(t, root, "d/a", "d/b") })
	old, late := time.Unix(1_000_000_000, 123_456_789), time.Unix(2_000_000_000, 5)
	remove(t, upper, "d/b")
	write(t, upper, "d/late", "d/old")
	require.NoError(t, os.Chtimes(filepath.Join(upper, "d/old"), old, old))
	require.NoError(t, os.Chtimes(filepath.Join(upper, "d/late"), late, late))
	epoch := time.Unix(1_500_000_000, 0)
	for _, h := range headers(t, layerOf(t, lower, upper, &epoch)) {
		want := map[string]time.Time{"d/": epoch, "d/.wh.b": time.Unix(0, 0), "d/late": epoch, "d/old": old}[h.Name]
		assert.True(t, want.Equal(h.ModTime), "%s: %s", h.Name, h.ModTime)
	}
}

// A comparison ends with its context and returns the cause.
func TestCancelledComparisonReturnsTheCause(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "a", "b")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(io.ErrNoProgress)
	to := treeAt(t, dir)
	l := newLayer(ctx, io.Discard, to, nil)
	assert.ErrorIs(t, (&comparison{ctx: ctx, upper: to, hint: hintAll(), to: l}).run(), io.ErrNoProgress)
}

// If neither side is an ancestor of the other, equal numbers and times prove nothing:
// the content is compared. Number and birth time still identify links, so that no more
// changes are reported than between an ancestor and its descendant.
func TestEqualNumbersProveNothingBetweenUnrelatedSides(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	lower, upper := filepath.Join(dir, "lower"), filepath.Join(dir, "upper")
	write(t, lower, "changed", "same")
	write(t, upper, "same")
	require.NoError(t, os.WriteFile(filepath.Join(upper, "changed"), []byte("CHANGED"), 0o644))
	from, to := treeAt(t, lower), treeAt(t, upper)
	for _, c := range []struct {
		rel                string
		links              uint32
		other              bool // another object
		related, unrelated Kind
	}{
		{"changed", 1, false, "", Modified},
		{"changed", 2, false, "", Modified},
		{"same", 1, false, "", ""},
		{"same", 2, false, "", ""},
		{"same", 1, true, "", ""},
		{"same", 2, true, Modified, Modified},
	} {
		old, err := from.stat(c.rel)
		require.NoError(t, err)
		old.links = c.links
		now := old
		if c.other {
			now.object++
		}
		for related, want := range map[bool]Kind{true: c.related, false: c.unrelated} {
			h := hintAll()
			h.related = related
			got, err := (&comparison{ctx: t.Context(), lower: from, upper: to, hint: h}).differ(c.rel, old, now)
			require.NoError(t, err)
			assert.Equal(t, want, got, "%+v, related: %t", c, related)
		}
	}
}

// The parent directories of a change and the other names of an object are written too.
// Their names are checked as well.
func TestWhiteoutNamesOfParentsAndLinksAreRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "a/.wh.dir/in/file", "first")
	require.NoError(t, os.Link(filepath.Join(dir, "first"), filepath.Join(dir, ".wh.other")))
	to := treeAt(t, dir)
	for _, rel := range []string{"a/.wh.dir/in/file", "first"} {
		n, err := to.stat(rel)
		require.NoError(t, err)
		l := newLayer(t.Context(), io.Discard, to, nil)
		if err = l.changed(Modified, rel, n); err == nil {
			err = l.close()
		}
		require.ErrorIs(t, err, errdefs.ErrFailedPrecondition, rel)
		assert.ErrorContains(t, err, "cannot be part of an image", rel)
	}
}

// The layer keeps nothing of an object whose names are all written: there may be
// millions.
func TestCompleteLinksAreNotKept(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "one", "partial")
	for _, name := range []string{"three", "two"} {
		require.NoError(t, os.Link(filepath.Join(dir, "one"), filepath.Join(dir, name)))
	}
	require.NoError(t, os.Link(filepath.Join(dir, "partial"), filepath.Join(dir, "unwritten")))
	to := treeAt(t, dir)
	var out bytes.Buffer
	l := newLayer(t.Context(), &out, to, nil)
	for i, name := range []string{"one", "three", "two", "partial"} {
		n, err := to.stat(name)
		require.NoError(t, err)
		require.NoError(t, l.changed(Added, name, n))
		assert.Len(t, l.links, map[int]int{0: 1, 1: 1, 2: 0, 3: 1}[i], name)
	}
	require.NoError(t, l.close())
	assert.Equal(t, []string{"one", "three", "two", "partial", "unwritten"}, tar2names(t, out.Bytes()))
}
