package recordlog

import (
	"maps"
	"slices"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// Replay applies the entries to a listing and returns, for each dataset that changes, the ops
// that make its properties what the listing says now. It ignores entries for datasets that are
// not in the listing: they were destroyed. The order of the entries for one dataset is that of
// the log.
func Replay(list []zfs.Dataset, c *Contents) (missing [][]zfs.Op) {
	byName := make(map[string]*replayed)
	for i := range list {
		d := &list[i]
		r := &replayed{dataset: d, from: c.Start}
		if p, err := ParsePosition(d.Props[AppliedProperty]); err == nil && p.ID == c.ID {
			r.from = p.Seq
		}
		byName[d.Name] = r
	}
	for _, e := range c.Entries {
		for _, op := range e.Ops {
			if r := byName[op.Dataset()]; r != nil && e.Seq > r.from {
				r.apply(op)
			}
		}
	}
	for i := range list {
		if ops := byName[list[i].Name].missing(); len(ops) > 0 {
			missing = append(missing, ops)
		}
	}
	return missing
}

// replayed is a dataset of a listing during a replay.
type replayed struct {
	dataset *zfs.Dataset
	from    uint64 // the properties have the entries up to this number
	before  map[string]string
	last    []zfs.Op // the last op of each property, in the order of the log
}

func (r *replayed) apply(op zfs.Op) {
	name, value, ok := op.Property()
	if !ok {
		return
	}
	if r.before == nil {
		r.before = r.dataset.Props
		r.dataset.Props = maps.Clone(r.before)
		if r.dataset.Props == nil {
			r.dataset.Props = make(map[string]string)
		}
	}
	if value == nil {
		delete(r.dataset.Props, name)
	} else {
		r.dataset.Props[name] = *value
	}
	r.last = slices.DeleteFunc(r.last, func(old zfs.Op) bool { n, _, _ := old.Property(); return n == name })
	r.last = append(r.last, op)
}

// missing returns the ops that the pool does not have.
func (r *replayed) missing() []zfs.Op {
	return slices.DeleteFunc(r.last, func(op zfs.Op) bool {
		name, value, _ := op.Property()
		is, set := r.before[name]
		return value == nil && !set || value != nil && set && is == *value
	})
}
