package diff

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"path"
	"slices"
	"strings"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// Objects is what ZFS knows of the objects in snapshots.
type Objects interface {
	ChangedObjects(ctx context.Context, from, to string) ([]zfs.ObjectRange, error)
	Object(ctx context.Context, snapshot string, object uint64) (zfs.Object, error)
}

// To answer with the path of an object ZFS looks through the directory that it
// is in: that costs as much as to read some dozens of names, and more where the
// directory is large. It is asked for a few, or where that is little beside what
// there is; else all directories are read.
const (
	fewObjects     = 64
	namesPerLookup = 64 // names that are read in the time of one question
	maxPaths       = 1 << 16
	xattrDirName   = "<xattrdir>"
)

// narrow asks ZFS where two snapshots may differ. It tells only of an ancestor and
// what came of it.
func narrow(ctx context.Context, objects Objects, lower, upper *tree) (hint, error) {
	all, err := objects.ChangedObjects(ctx, lower.name, upper.name)
	if err != nil {
		return hint{}, err
	}
	ranges := inUse(all)
	h := hint{ranges: ranges, known: true, related: true, paths: &paths{all: true}}
	total, err := upper.objects()
	if err != nil {
		return hint{}, err
	}
	if n := count(ranges); n > maxPaths || n > fewObjects && n*namesPerLookup > total {
		return h, nil
	}
	f := finder{objects: objects, lower: lower, upper: upper, hint: h, asked: make(map[string]int), named: make(map[uint64]string)}
	found, err := f.find(ctx)
	switch {
	case err == nil:
		h.paths = found
	case errors.Is(err, errXattrObject):
		return hint{related: true, paths: &paths{all: true}}, nil
	case !errors.Is(err, errPathUnknown):
		return hint{}, err
	}
	return h, nil
}

// inUse answers the ranges of objects that are there, in the order of their
// numbers. Of what is free nothing leads anywhere, and those ranges overlap
// with others.
func inUse(ranges []zfs.ObjectRange) []zfs.ObjectRange {
	ranges = slices.DeleteFunc(slices.Clone(ranges), func(r zfs.ObjectRange) bool { return r.Free || r.First > r.Last })
	slices.SortFunc(ranges, func(a, b zfs.ObjectRange) int { return cmp.Compare(a.First, b.First) })
	var merged []zfs.ObjectRange
	for _, r := range ranges {
		if last := len(merged) - 1; last >= 0 && r.First <= merged[last].Last {
			merged[last].Last = max(merged[last].Last, r.Last)
			continue
		}
		merged = append(merged, r)
	}
	return merged
}

// count answers how many objects there are in ranges, or the greatest number
// where they are more than can be asked for.
func count(ranges []zfs.ObjectRange) (n uint64) {
	for _, r := range ranges {
		if r.Last-r.First >= maxPaths {
			return math.MaxUint64
		}
		n += r.Last - r.First + 1
	}
	return n
}

var (
	// errUnsure is for objects whose names ZFS does not know for certain: it
	// knows one of an object, even of one that has several, and not always one
	// that is still there.
	errPathUnknown = errors.New("ZFS is not sure of a path")
	// errHidden is for extended attributes that are objects of their own. Which
	// file they belong to is not asked.
	errXattrObject = errors.New("an extended attribute is an object")
)

// finder finds the paths of the objects in a hint.
type finder struct {
	objects      Objects
	lower, upper *tree
	hint         hint
	asked        map[string]int    // how many objects ZFS said are in a directory
	named        map[uint64]string // paths of objects in the directories that were read
	missed       bool              // whether an object was not found
}

// find answers the paths of all of them.
func (f *finder) find(ctx context.Context) (*paths, error) {
	found := &paths{}
	for _, r := range f.hint.ranges {
		for object := r.First; object <= r.Last; object++ {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			full, err := f.path(ctx, object)
			if err != nil {
				return nil, err
			}
			found.add(full)
		}
	}
	return found, f.checkSnapshotExists(ctx)
}

// stillThere makes sure of what was not found: where the snapshot itself was renamed
// meanwhile, no object of it was.
func (f *finder) checkSnapshotExists(ctx context.Context) error {
	if !f.missed {
		return nil
	}
	root, err := f.upper.stat(".")
	if err != nil {
		return err
	}
	_, err = f.objects.Object(ctx, f.upper.name, root.object)
	if errors.Is(err, zfs.ErrNotFound) {
		return fmt.Errorf("%s: %w", f.upper.name, errPathUnknown)
	}
	return err
}

// path answers the path of an object, or "" where it has none or was not
// touched.
func (f *finder) path(ctx context.Context, object uint64) (string, error) {
	if full := f.named[object]; full != "" && f.upper.leadsTo(full, object) {
		return full, nil
	}
	is, err := f.objects.Object(ctx, f.upper.name, object)
	f.missed = f.missed || errors.Is(err, zfs.ErrNotFound)
	if errors.Is(err, zfs.ErrNotFound) || err == nil && is.Links == 0 {
		return "", nil // the file system's own, or a file that only a program has open
	}
	if err != nil {
		return "", err
	}
	if is.PathErr == nil && f.upper.leadsTo(is.Path, object) {
		return is.Path, f.read(ctx, path.Dir(is.Path))
	}
	if strings.Contains(is.Path, xattrDirName) {
		return "", fmt.Errorf("object %d of %s: %w", object, f.upper.name, errXattrObject)
	}
	was, err := f.objects.Object(ctx, f.lower.name, object)
	if err == nil && was.Generation == is.Generation && was.Changed.Equal(is.Changed) {
		return "", nil
	}
	if err != nil && !errors.Is(err, zfs.ErrNotFound) {
		return "", err
	}
	return "", fmt.Errorf("object %d of %s: %w", object, f.upper.name, errPathUnknown)
}

// read reads a directory that a second path leads through: its neighbours in
// there, of which there may be many, need not be asked for.
func (f *finder) read(ctx context.Context, full string) error {
	if f.asked[full]++; f.asked[full] != 2 {
		return nil
	}
	list, err := f.upper.readDir(ctx, relative(full))
	if err != nil {
		return err
	}
	for _, e := range list {
		if f.hint.changed(e.object) {
			f.named[e.object] = path.Join(full, e.name)
		}
	}
	return nil
}

// leadsTo tells whether a path, with a slash at its beginning, is the one of an
// object.
func (t *tree) leadsTo(full string, object uint64) bool {
	n, err := t.stat(relative(full))
	return err == nil && n.object == object && (n.isDir() || n.links == 1)
}

// relative is a path, with a slash at its beginning, as a tree takes it.
func relative(full string) string {
	if rel := strings.TrimPrefix(full, "/"); rel != "" {
		return rel
	}
	return "."
}
