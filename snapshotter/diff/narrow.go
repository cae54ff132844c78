package diff

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// Objects is what ZFS knows of the objects in snapshots.
type Objects interface {
	ChangedObjects(ctx context.Context, from, to string) ([]zfs.ObjectRange, error)
	Object(ctx context.Context, snapshot string, object uint64) (zfs.Object, error)
}

// To ask ZFS for the path of an object costs as much as to read some dozens of
// names in directories. It is asked for a few, or where that is little beside
// what there is; else all directories are read.
const (
	fewObjects   = 64
	namesAsked   = 64 // names that are read in the time of one question
	mostPaths    = 1 << 16
	xattrDirName = "<xattrdir>"
)

// narrow asks ZFS where two snapshots may differ.
func narrow(ctx context.Context, objects Objects, lower, upper *tree) (hint, error) {
	all, err := objects.ChangedObjects(ctx, lower.name, upper.name)
	if err != nil {
		return hint{}, err
	}
	ranges := inUse(all)
	h := hint{ranges: ranges, known: true, paths: &paths{all: true}}
	total, err := upper.objects()
	if err != nil {
		return hint{}, err
	}
	if n := count(ranges); n > mostPaths || n > fewObjects && n*namesAsked > total {
		return h, nil
	}
	found, err := findPaths(ctx, objects, ranges, lower, upper)
	switch {
	case err == nil:
		h.paths = found
	case errors.Is(err, errHidden):
		return anything(), nil
	case !errors.Is(err, errUnsure):
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

func count(ranges []zfs.ObjectRange) (n uint64) {
	for _, r := range ranges {
		n += r.Last - r.First + 1
	}
	return n
}

var (
	// errUnsure is for objects whose names ZFS does not know for certain: it
	// knows one of an object, even of one that has several, and not always one
	// that is still there.
	errUnsure = errors.New("ZFS is not sure of a path")
	// errHidden is for extended attributes that are objects of their own. Which
	// file they belong to is not asked.
	errHidden = errors.New("an extended attribute is an object")
)

// findPaths asks for the paths of objects.
func findPaths(ctx context.Context, objects Objects, ranges []zfs.ObjectRange, lower, upper *tree) (*paths, error) {
	found := &paths{}
	for _, r := range ranges {
		for object := r.First; object <= r.Last; object++ {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			path, err := findPath(ctx, objects, object, lower, upper)
			if err != nil {
				return nil, err
			}
			found.add(path)
		}
	}
	return found, nil
}

// findPath answers the path of an object, or "" where it has none or was not
// touched.
func findPath(ctx context.Context, objects Objects, object uint64, lower, upper *tree) (string, error) {
	is, err := objects.Object(ctx, upper.name, object)
	if errors.Is(err, zfs.ErrNotFound) || err == nil && is.Links == 0 {
		return "", nil // the file system's own, or a file that only a program has open
	}
	if err != nil {
		return "", err
	}
	dir := is.Mode&typeMask == typeDir
	if is.PathErr == nil && (dir || is.Links == 1) && upper.leadsTo(is.Path, object) {
		return is.Path, nil
	}
	if strings.Contains(is.Path, xattrDirName) {
		return "", fmt.Errorf("object %d of %s: %w", object, upper.name, errHidden)
	}
	was, err := objects.Object(ctx, lower.name, object)
	if err == nil && was.Generation == is.Generation && was.Changed.Equal(is.Changed) {
		return "", nil
	}
	if err != nil && !errors.Is(err, zfs.ErrNotFound) {
		return "", err
	}
	return "", fmt.Errorf("object %d of %s: %w", object, upper.name, errUnsure)
}

// leadsTo tells whether a path, with a slash at its beginning, is one of an
// object.
func (t *tree) leadsTo(full string, object uint64) bool {
	rel := strings.TrimPrefix(full, "/")
	if rel == "" {
		rel = "."
	}
	n, err := t.stat(rel)
	return err == nil && n.object == object
}
