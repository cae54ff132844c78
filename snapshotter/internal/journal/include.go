package journal

import (
	"maps"
	"slices"

	"github.com/zfstpl/zfstpl/snapshotter/internal/recordlog"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// Included is what a transaction must contain that changes properties of datasets by itself, see
// Include. It has nothing without a log.
type Included struct {
	// Entries are the journal's changes of these datasets.
	Entries []zfs.Op
	// Marks make a replay of the log skip what it has for a dataset, by dataset. The mark of a
	// dataset follows its entries and precedes other changes of its properties: a process that
	// is killed leaves the first part of a transaction.
	Marks map[string][]zfs.Op
	// Position is the op that a transaction which depends on the log begins with.
	Position []zfs.Op
}

// Before returns all ops, for a transaction that they begin.
func (i Included) Before() []zfs.Op {
	ops := slices.Concat(i.Position, i.Entries)
	for _, dataset := range slices.Sorted(maps.Keys(i.Marks)) {
		ops = append(ops, i.Marks[dataset]...)
	}
	return ops
}

// Include calls fn, which changes the properties of datasets in a transaction that contains what
// Include gives it: the entries of these datasets, so that the journal does not write them later,
// over fn's changes, and what keeps a replay of the log from doing so. If fn succeeds, the
// journal no longer has these entries. Without a log the caller uses Barrier.
func (j *Journal) Include(datasets []string, fn func(Included) error) error {
	if !j.HasLog() {
		return fn(Included{})
	}
	content, included := j.include(datasets)
	err := fn(content)
	j.mu.Lock()
	defer j.mu.Unlock()
	if err != nil {
		for _, e := range slices.Backward(included) {
			if e.group.seq == 0 && !slices.Contains(j.log.queue, e.group) {
				j.log.queue = slices.Insert(j.log.queue, 0, e.group)
			}
		}
		defer j.Notify()
	}
	j.release(included, err == nil)
	return err
}

// include marks the entries of datasets as busy, after a flush that writes one of them. Those
// that could not be written to the log stay out of it until they are released.
func (j *Journal) include(datasets []string) (content Included, included []*entry) {
	isOne := func(e *entry) bool { return slices.Contains(datasets, e.dataset()) }
	j.log.writing.Lock()
	defer func() { j.log.writing.Unlock() }()
	_ = j.writeLocked(false)
	j.mu.Lock()
	defer j.mu.Unlock()
	for slices.ContainsFunc(j.pending, func(e *entry) bool { return e.busy && isOne(e) }) {
		j.log.writing.Unlock()
		j.written.Wait()
		j.mu.Unlock()
		j.log.writing.Lock()
		_ = j.writeLocked(false)
		j.mu.Lock()
	}
	content = Included{Position: []zfs.Op{j.raise()}, Marks: make(map[string][]zfs.Op)}
	for _, dataset := range datasets {
		content.Marks[dataset] = j.mark(dataset)
	}
	for _, e := range j.pending {
		if isOne(e) {
			e.busy = true
			included = append(included, e)
			content.Entries = append(content.Entries, e.ops...)
			j.log.queue = slices.DeleteFunc(j.log.queue, func(g *group) bool { return g == e.group })
		}
	}
	return content, included
}

// copyOps returns the ops that copy entries. An entry that is not in the log, on a dataset for
// which the log has older entries, has a mark before it: a replay would apply the older ones
// again.
func (j *Journal) copyOps(batch ...*entry) (ops []zfs.Op) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.HasLog() {
		ops = append(ops, j.raise())
	}
	marked := make(map[string]bool)
	for _, e := range batch {
		if e.group.seq == 0 && !marked[e.dataset()] && j.HasLog() {
			marked[e.dataset()] = true
			ops = append(ops, j.mark(e.dataset())...)
		}
		ops = append(ops, e.ops...)
	}
	return ops
}

// Position returns the op that begins a transaction which depends on the log, if there is one.
func (j *Journal) Position() []zfs.Op {
	if !j.HasLog() {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return []zfs.Op{j.raise()}
}

// raise returns the op that tells the base how far the log has come. The caller holds the mutex.
func (j *Journal) raise() zfs.Op {
	return zfs.Raise(j.log.base, recordlog.PositionProperty, j.log.last.String())
}

// mark returns the op that makes a replay skip the entries that the log has for a dataset. The
// caller holds the mutex.
func (j *Journal) mark(dataset string) []zfs.Op {
	seq := j.log.logged[dataset]
	if seq == 0 {
		return nil
	}
	return []zfs.Op{zfs.Set(dataset, recordlog.AppliedProperty, recordlog.Position{ID: j.log.last.ID, Seq: seq}.String())}
}
