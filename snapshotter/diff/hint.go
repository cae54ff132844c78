package diff

import (
	"maps"
	"slices"
	"strings"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// hint says where two snapshots may differ. The zero value with paths that are
// all says nothing: everything may.
type hint struct {
	// ranges are the objects that may have changed, apart from each other and in
	// the order of their numbers. An object that is in none is what it was, and in a directory
	// that is in none no name has changed.
	ranges []zfs.ObjectRange
	known  bool // whether ranges are known
	// related says that lower is an ancestor of upper, for certain: see differ.
	related bool
	// paths lead to those of them that were there before.
	paths *paths
}

// anything is the hint that knows nothing, not even whether one side came of the
// other.
func hintAll() hint { return hint{paths: &paths{all: true}} }

// nothing is the hint that there is nothing to find.
func hintNone() hint { return hint{known: true, related: true, paths: &paths{}} }

func (h hint) changed(object uint64) bool {
	if !h.known {
		return true
	}
	_, found := slices.BinarySearchFunc(h.ranges, object, func(r zfs.ObjectRange, object uint64) int {
		switch {
		case r.Last < object:
			return -1
		case r.First > object:
			return 1
		}
		return 0
	})
	return found
}

// paths is a set of paths, by their first names.
type paths struct {
	all   bool // every path there is
	below map[string]*paths
}

// child answers what is below a name, or nil.
func (p *paths) child(name string) *paths {
	if p == nil || p.all {
		return p
	}
	return p.below[name]
}

func (p *paths) names() []string { return slices.Sorted(maps.Keys(p.below)) }

// add takes a path in, which begins with a slash.
func (p *paths) add(full string) {
	for name := range strings.SplitSeq(strings.Trim(full, "/"), "/") {
		if name == "" {
			return
		}
		next := p.below[name]
		if next == nil {
			next = &paths{}
			if p.below == nil {
				p.below = make(map[string]*paths)
			}
			p.below[name] = next
		}
		p = next
	}
}
