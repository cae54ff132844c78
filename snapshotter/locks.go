package snapshotter

import "github.com/zfstpl/zfstpl/snapshotter/internal/keylock"

// The locks of a snapshotter, in the order in which they are taken:
//
//  1. gate.closing: for reading by each operation, for writing by Close. Before it, an
//     operation waits for a slot of a limiter of the gate.
//  2. locks.keys: by snapshot name. An operation takes several in sorted order.
//  3. locks.datasets: by dataset. An operation takes at most one.
//  4. reaper.Reaper.cleanup: one cleanup, eviction or reclaim at a time. An operation that
//     waits for a reclaim may hold the locks above; the reclaim takes the locks below.
//  5. journal.Journal.flushing: one writer of the journal at a time.
//  6. mounts.Set.locks: by dataset, for view mounts and held mounts. One at a time.
//  7. index.Index.mu: never held during a call to the pool.
//  8. journal.Journal.mu.
//
// A goroutine that holds one of these takes none with a smaller number. In particular the
// holder of cleanup or flushing never waits for a reclaim: it calls Journal.Barrier, not
// Snapshotter.barrier or Reaper.WithReclaim.
//
// The other mutexes guard the fields of one type: keylock.Locks and the parts of a reaper. No
// lock is taken while one of them is held.
//
// Exceptions:
//   - Remove has no limit, and Clean takes no slot. Stat, Walk, Mounts, NamespaceOf,
//     HeldAt, StandIn, Fill, Begin and StopCleanup take neither a slot nor closing,
//     except that Stat does to restore a record. Usage takes them only to restore a record
//     or to query the pool.
//   - A reclaim has a goroutine of its own. It takes cleanup while its callers hold
//     closing, keys and datasets.
//   - Out of order, but without waiting: a cleanup takes datasets with TryLockEach while
//     it holds cleanup and flushing; heal takes keys with TryLockEach; Remove
//     takes its key with LockOrDefer.
//   - The holder of a key runs the deferred Remove before it unlocks the key. The Remove
//     takes Index.mu and Journal.mu.
//   - The index calls Journal.Append and Journal.Notify under its mutex.
//   - New and Resume use the index and the journal before they start goroutines. The
//     cleanup mark of the reaper has no lock: New and Resume use it before the goroutine of
//     the journal starts, then only that goroutine and, after it has ended, Close.

// locks are the locks that operations hold while they change the pool.
type locks struct {
	keys     keylock.Locks // by snapshot name
	datasets keylock.Locks // by dataset
}
