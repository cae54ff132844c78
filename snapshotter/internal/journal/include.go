package journal

import (
	"slices"

	"github.com/zfstpl/zfstpl/snapshotter/internal/recordlog"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// Include calls fn, which changes the properties of datasets by itself. The transaction in which
// fn does that begins with the ops that Include gives it: the entries of these datasets, so that
// the journal does not write them later, over fn's changes, and what keeps a replay of the log
// from doing so. If fn succeeds, the journal no longer has these entries. Without a log the ops
// are empty, and the caller uses Barrier.
func (j *Journal) Include(datasets []string, fn func(before []zfs.Op) error) error {
	if !j.HasLog() {
		return fn(nil)
	}
	before, included := j.include(datasets)
	err := fn(before)
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
func (j *Journal) include(datasets []string) (before []zfs.Op, included []*entry) {
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
	before = []zfs.Op{j.raise()}
	for _, dataset := range datasets {
		before = append(before, j.mark(dataset)...)
	}
	for _, e := range j.pending {
		if isOne(e) {
			e.busy = true
			included = append(included, e)
			before = append(before, e.ops...)
			j.log.queue = slices.DeleteFunc(j.log.queue, func(g *group) bool { return g == e.group })
		}
	}
	return before, included
}

// marks returns the ops that begin a transaction which writes entries to the pool. An entry that
// is not in the log, on a dataset for which the log has older entries, needs a mark: a replay
// would apply the older entries again.
func (j *Journal) marks(batch []*entry) (ops []zfs.Op) {
	if !j.HasLog() {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	ops = append(ops, j.raise())
	marked := make(map[string]bool)
	for _, e := range batch {
		if e.group.seq == 0 && !marked[e.dataset()] {
			marked[e.dataset()] = true
			ops = append(ops, j.mark(e.dataset())...)
		}
	}
	return ops
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
