package index

import (
	"time"

	"github.com/zfstpl/zfstpl/snapshotter/internal/backoff"
)

// A stuck dataset is tried again by the next cleanup, then after backoff.Min, then after
// pauses that double up to backoff.Max. Except in mode manual, the background
// goroutine runs these cleanups. If the reason changes, the backoff starts again.

// stuck is the backoff of a dataset that could not be destroyed.
type stuck struct {
	reason string
	pause  time.Duration
	next   time.Time // cleanups skip the dataset until then
}

// retryTime returns the time from which a cleanup tries a stuck dataset again, or zero. The
// caller holds the mutex.
func (x *Index) retryTime(dataset string) time.Time {
	if k := x.stuck[dataset]; k != nil {
		return k.next
	}
	return time.Time{}
}

// BackOff records that a dataset could not be destroyed, and reports whether the reason
// is a new one.
func (x *Index) BackOff(dataset, reason string, now time.Time) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	k := x.stuck[dataset]
	isNew := k == nil || k.reason != reason
	if isNew {
		k = &stuck{reason: reason}
		x.stuck[dataset] = k
	} else {
		k.pause = backoff.Next(k.pause)
	}
	k.next = now.Add(k.pause)
	return isNew
}

// ClearBackoff removes the backoff of a dataset that waits only for a clone of ours. The
// clone has its own backoff.
func (x *Index) ClearBackoff(dataset string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.stuck, dataset)
}
