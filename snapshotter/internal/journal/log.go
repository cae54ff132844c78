package journal

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/containerd/log"

	"github.com/zfstpl/zfstpl/snapshotter/internal/recordlog"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

const (
	// MaxAge is how long an entry may be in the log only.
	MaxAge = 30 * time.Second
	// MaxPending is how many entries may be in the log only.
	MaxPending = 1000
)

// EffectOfNoLog is what the daemon's log says about a base whose log is not written.
const EffectOfNoLog = "each change of a snapshot waits for a transaction group"

// ErrNotLogged is the error of a change that is not in the log. The caller then changes the
// pool itself, see Include.
var ErrNotLogged = errors.New("the base has no usable log")

// ErrMaybeLogged is ErrNotLogged for a change that is in the file and perhaps durable. If the pool
// refuses it too, it has to be rolled back.
var ErrMaybeLogged = fmt.Errorf("%w, and a replay may apply a change that failed", ErrNotLogged)

// group is a change that is one entry of the log. Journal.mu guards its fields except ops.
type group struct {
	ops    []zfs.Op
	seq    uint64 // its number in the log; 0 while it is not there
	synced bool   // whether it is durable in the log
	waits  bool   // a caller waits for it, and withdraws it if it cannot be written
	failed bool   // it was not written, or it is not known whether it is durable
}

// logState is the log of a journal. Without a log file is nil.
type logState struct {
	// writing is held while the file is written, synchronised or replaced. It is taken before
	// Journal.mu, and after flushing.
	writing sync.Mutex
	file    *recordlog.Log
	base    string
	off     error // why the log must not be used, see CheckLog

	// Journal.mu guards these.
	failure error             // why the last write failed; nil after one that succeeded
	queue   []*group          // the changes that are not in the file yet, oldest first
	logged  map[string]uint64 // for each dataset, its last entry in the file
	last    recordlog.Position
}

// UseLog makes the journal write changes to a log of base first. contents is what the log has
// already, and missing the changes in it that the properties lack, see recordlog.Replay. UseLog
// is called before Start and before any other change.
func (j *Journal) UseLog(base string, file *recordlog.Log, contents *recordlog.Contents, missing [][]zfs.Op) {
	j.log.file, j.log.base, j.log.last = file, base, file.Position()
	j.log.logged = make(map[string]uint64)
	if contents == nil {
		return
	}
	for _, e := range contents.Entries {
		for _, op := range e.Ops { // the last entry has the greatest number
			j.log.logged[op.Dataset()] = e.Seq
		}
	}
	now := time.Now()
	for _, ops := range missing {
		g := &group{ops: ops, seq: contents.Last(), synced: true}
		j.pending = append(j.pending, &entry{ops: ops, group: g, added: now})
	}
}

// HasLog reports whether the base has a log, which may be unusable at present.
func (j *Journal) HasLog() bool { return j.log.file != nil }

// Refuse records why the base has no log. It is called before Start.
func (j *Journal) Refuse(reason error) { j.log.failure = reason }

// CheckLog finds out whether the log may be used, see Hooks.CheckLog. What the log has stays
// valid.
func (j *Journal) CheckLog(ctx context.Context) {
	if !j.HasLog() {
		return
	}
	reason := j.hooks.CheckLog(ctx)
	j.log.writing.Lock()
	defer j.log.writing.Unlock()
	if j.log.off = reason; reason != nil {
		j.reportLog(reason)
	}
}

// Commit adds a change and returns when it is durable in the log. If it cannot be, Commit
// returns ErrNotLogged or ErrMaybeLogged, and the journal does not have the change. ops are Sets
// and Inherits.
func (j *Journal) Commit(ops []zfs.Op) error { return j.commit(ops, true) }

// CommitUnsynced is Commit for a change that is durable only if the machine does not stop before
// the next change, or before the next txg.
func (j *Journal) CommitUnsynced(ops []zfs.Op) error { return j.commit(ops, false) }

func (j *Journal) commit(ops []zfs.Op, sync bool) error {
	if !j.HasLog() {
		return ErrNotLogged
	}
	g := j.add(&group{ops: ops, waits: true}, false)
	j.log.writing.Lock()
	defer j.log.writing.Unlock()
	j.mu.Lock()
	done := g.synced || g.failed || !sync && g.seq > 0 // by another caller, while this one waited
	j.mu.Unlock()
	if !done {
		_ = j.writeLocked(sync) // g has the outcome
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if !g.failed {
		return nil
	}
	j.drop(func(e *entry) bool { return e.group == g })
	if g.seq > 0 {
		return ErrMaybeLogged
	}
	return ErrNotLogged
}

// writeLog writes all changes to the log, and synchronises it if sync is set. It returns
// ErrNotLogged if the journal has no log, or the reason why the log cannot be written.
func (j *Journal) writeLog(sync bool) error {
	if !j.HasLog() {
		return ErrNotLogged
	}
	j.log.writing.Lock()
	defer j.log.writing.Unlock()
	return j.writeLocked(sync)
}

// writeLocked is writeLog for a caller that holds writing. The changes of callers that wait
// fail if they cannot be written. The others stay in the queue.
func (j *Journal) writeLocked(sync bool) error {
	j.mu.Lock()
	queue := slices.DeleteFunc(slices.Clone(j.log.queue), func(g *group) bool { return g.failed })
	j.mu.Unlock()
	err := j.writeGroups(queue)
	if err == nil && sync {
		if err = j.log.file.Sync(); err != nil {
			j.log.file.Break()
		}
	}
	if err != nil || len(queue) > 0 {
		j.reportLog(err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, e := range j.pending {
		switch g := e.group; {
		case err != nil:
			g.failed = g.failed || g.waits && !g.synced
		case sync:
			g.synced = g.synced || g.seq > 0
		}
	}
	return err
}

// writeGroups writes changes to the file. The caller holds writing.
func (j *Journal) writeGroups(groups []*group) error {
	if j.log.off != nil {
		return j.log.off
	}
	if j.log.file.Broken() {
		return errors.New("an earlier write of the log failed")
	}
	if len(groups) == 0 {
		return nil
	}
	var ops [][]zfs.Op
	for _, g := range groups {
		ops = append(ops, g.ops)
	}
	first, err := j.log.file.Write(ops)
	if err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for i, g := range groups {
		g.seq = first + uint64(i)
		for _, op := range g.ops {
			j.log.logged[op.Dataset()] = g.seq
		}
	}
	j.log.last = j.log.file.Position()
	j.log.queue = slices.DeleteFunc(j.log.queue, func(g *group) bool { return g.seq > 0 })
	return nil
}

// reportLog logs when the log becomes unusable, and when it can be used again.
func (j *Journal) reportLog(err error) {
	j.mu.Lock()
	was := j.log.failure
	j.log.failure = err
	j.mu.Unlock()
	switch {
	case err != nil && was == nil:
		log.L.WithError(err).WithField("dataset", j.log.base).
			WithField("effect", EffectOfNoLog).Warn("failed to write log of base")
	case err == nil && was != nil:
		log.L.WithField("dataset", j.log.base).Info("log of base is written again")
	}
}

// LogError returns why changes are not written to the log at present, or nil. It does not wait.
func (j *Journal) LogError() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.log.failure
}

// Settle makes all entries durable: in the log, or else in the pool, in large batches if urgent
// is set.
func (j *Journal) Settle(ctx context.Context, urgent bool) error {
	if j.writeLog(true) == nil {
		return nil
	}
	return j.FlushPaced(ctx, urgent)
}

// untilCopy returns how long the entries may stay in the log only. It returns 0 if it is time
// to write them to the pool: no operation writes, or the entries are many or old.
func (j *Journal) untilCopy(now time.Time) time.Duration {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.pending) == 0 || len(j.pending) > MaxPending || j.hooks.MayBatch(false) {
		return 0
	}
	return min(max(MaxAge-now.Sub(j.pending[0].added), 0), time.Second)
}

// truncateLog removes all entries from the log if the pool has them.
func (j *Journal) truncateLog() {
	if !j.HasLog() {
		return
	}
	j.log.writing.Lock()
	defer j.log.writing.Unlock()
	j.mu.Lock()
	inUse := len(j.pending) > 0
	j.mu.Unlock()
	if inUse {
		return
	}
	// A change that is added from here on is not in the file before writing is unlocked.
	if err := j.log.file.Truncate(); err != nil {
		log.L.WithError(err).WithField("dataset", j.log.base).Debug("failed to truncate log")
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	clear(j.log.logged)
}

// closeLog truncates the log if the pool has all entries, and closes it.
func (j *Journal) closeLog() error {
	if !j.HasLog() {
		return nil
	}
	j.truncateLog()
	j.log.writing.Lock()
	defer j.log.writing.Unlock()
	return j.log.file.Close()
}
