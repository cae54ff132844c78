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

// Objects is what ZFS knows about the objects of snapshots.
type Objects interface {
	ChangedObjects(ctx context.Context, from, to string) ([]zfs.ObjectRange, error)
	Object(ctx context.Context, snapshot string, object uint64) (zfs.Object, error)
}

// To find the path of an object, ZFS searches the directory that the object is
// in. That costs as much as reading some dozens of names, and more in a large
// directory. Paths are looked up for a few objects, or where the lookups are
// cheap compared with the file system; otherwise all directories are read.
const (
	fewObjects     = 64
	namesPerLookup = 64 // names that are read in the time of one lookup
	maxPaths       = 1 << 16
	xattrDirName   = "<xattrdir>"
)

// narrow asks ZFS where two snapshots may differ. ZFS knows that only if lower is an
// ancestor of upper.
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

// inUse returns the ranges of objects that exist, merged and in the order of their
// numbers. Free objects have no path, and their ranges overlap with others.
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

// count returns the number of objects in ranges, or the greatest number if there are
// more than paths are looked up for.
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
	// errPathUnknown is for objects whose names ZFS does not know for certain: it
	// knows one name of an object, even if the object has several, and that name may
	// no longer exist.
	errPathUnknown = errors.New("ZFS does not know the path for certain")
	// errXattrObject is for extended attributes that are objects of their own. The
	// files that they belong to are not looked up.
	errXattrObject = errors.New("an extended attribute is an object")
)

// finder finds the paths of the objects in a hint.
type finder struct {
	objects      Objects
	lower, upper *tree
	hint         hint
	asked        map[string]int    // how many objects ZFS found in a directory
	named        map[uint64]string // paths of the objects in directories that were read
	missed       bool              // whether an object was not found
}

// find returns the paths of all objects.
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

// checkSnapshotExists checks the snapshot if an object was not found: if the snapshot
// was renamed meanwhile, no object is found.
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

// path returns the path of an object, or "" if it has none or was not touched.
func (f *finder) path(ctx context.Context, object uint64) (string, error) {
	if full := f.named[object]; full != "" && f.upper.leadsTo(full, object) {
		return full, nil
	}
	is, err := f.objects.Object(ctx, f.upper.name, object)
	f.missed = f.missed || errors.Is(err, zfs.ErrNotFound)
	if errors.Is(err, zfs.ErrNotFound) || err == nil && is.Links == 0 {
		return "", nil // internal to the file system, or an unlinked file that a program has open
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

// read reads a directory when it is found for the second time, so that the other
// objects in it, of which there may be many, need no lookup.
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

// leadsTo reports whether an absolute path is the only path of an object.
func (t *tree) leadsTo(full string, object uint64) bool {
	n, err := t.stat(relative(full))
	return err == nil && n.object == object && (n.isDir() || n.links == 1)
}

// relative returns an absolute path in the form that a tree takes.
func relative(full string) string {
	if rel := strings.TrimPrefix(full, "/"); rel != "" {
		return rel
	}
	return "."
}
