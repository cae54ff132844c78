package diff

import (
	"maps"
	"slices"
	"strings"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// hint says where two snapshots may differ. The zero value with paths{all: true}
// excludes nothing.
type hint struct {
	// ranges are the objects that may have changed, disjoint and in the order of their
	// numbers. An object outside of them has not changed, and no name in a directory
	// outside of them has.
	ranges []zfs.ObjectRange
	known  bool // whether ranges is valid
	// related is true if lower is certainly an ancestor of upper; see differ.
	related bool
	// paths lead to the objects of ranges that have a path in upper.
	paths *paths
}

// hintAll returns the hint that excludes nothing and knows no relation between the
// sides.
func hintAll() hint { return hint{paths: &paths{all: true}} }

// hintNone returns the hint that there is no change.
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

// paths is a set of paths, as a tree of their components.
type paths struct {
	all   bool // the set of all paths
	below map[string]*paths
}

// child returns the paths below a name, or nil.
func (p *paths) child(name string) *paths {
	if p == nil || p.all {
		return p
	}
	return p.below[name]
}

func (p *paths) names() []string { return slices.Sorted(maps.Keys(p.below)) }

// add adds a path that begins with a slash.
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
