package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/zfstpl/zfstpl/snapshotter/internal/backoff"

	"github.com/containerd/log"

	"github.com/zfstpl/zfstpl/snapshotter/holders"
	"github.com/zfstpl/zfstpl/snapshotter/internal/state"
	"github.com/zfstpl/zfstpl/snapshotter/space"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// A stuck dataset is tried again by the next cleanup, then after backoff.Min, then after
// pauses that double up to backoff.Max. Except in mode CleanupManual, the background
// goroutine runs these cleanups. If the reason changes, the backoff starts again.
// stuck is the backoff of a dataset that could not be destroyed.
type stuck struct {
	reason string
	pause  time.Duration
	next   time.Time // cleanups skip the dataset until then
}

// isWaiting reports whether the pause has not ended at now.
func (k *stuck) isWaiting(now time.Time) bool { return k != nil && now.Before(k.next) }

// backOff records that a dataset could not be destroyed, and reports whether the reason
// is a new one.
func (x *index) backOff(dataset, reason string, now time.Time) bool {
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

// clearBackoff removes the backoff of a dataset that waits only for a clone of ours. The
// clone has its own backoff.
func (x *index) clearBackoff(dataset string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.stuck, dataset)
}

// nextRetry returns the time of the next retry, and whether there is one. It removes the
// backoff of templates that are in use again. It skips cached templates that have not
// expired: only an eviction destroys these.
func (x *index) nextRetry(keep time.Duration) (next time.Time, ok bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for dataset, k := range x.stuck {
		if x.garbage[dataset] == nil {
			t := x.templates[dataset]
			if t == nil || !t.cached() {
				delete(x.stuck, dataset)
				continue
			}
			if !t.expired(keep) {
				continue
			}
		}
		if !ok || k.next.Before(next) {
			next, ok = k.next, true
		}
	}
	return next, ok
}

// nextDestroy returns the time from which a cleanup can destroy a dataset, which may be
// in the past, and whether there is such a dataset.
func (x *index) nextDestroy(keep time.Duration, now time.Time) (next time.Time, ok bool) {
	can := make(map[string]bool) // can be destroyed now: has no clone that stays
	for _, dataset := range space.Order(x.nodes(keep, now)) {
		can[dataset] = true
	}
	x.mu.RLock()
	defer x.mu.RUnlock()
	consider := func(dataset string, since time.Time) {
		if k := x.stuck[dataset]; k != nil && k.next.After(since) {
			since = k.next
		}
		if !since.After(now) && !can[dataset] {
			return
		}
		if !ok || since.Before(next) {
			next, ok = since, true
		}
	}
	for dataset, t := range x.garbage {
		consider(dataset, t.since)
	}
	for dataset, t := range x.templates {
		switch {
		case !t.cached():
		case t.IsOpaque():
			consider(dataset, t.idle)
		case keep != KeepForever:
			consider(dataset, t.idle.Add(keep))
		}
	}
	return next, ok
}

// reportLeftovers backs off datasets that could not be destroyed, and logs the reason and
// a fix, once for each reason. It logs nothing about the origin of a clone of ours that
// could not be destroyed: the message about the clone is enough.
func (s *Snapshotter) reportLeftovers(ctx context.Context, left map[string]error) {
	var busy []string
	for dataset, err := range left {
		if errors.Is(err, zfs.ErrBusy) {
			busy = append(busy, dataset)
		}
	}
	var found map[string][]holders.Mount
	if len(busy) > 0 {
		found = s.config.holders(busy...)
	}
	for _, dataset := range slices.Sorted(maps.Keys(left)) {
		err := left[dataset]
		if errors.Is(err, zfs.ErrHasClones) && s.index.hasClone(dataset) {
			s.index.clearBackoff(dataset)
			continue
		}
		field, value, fix := s.explain(ctx, dataset, err, found[dataset])
		if s.index.backOff(dataset, err.Error()+value, time.Now()) {
			entry := log.G(ctx).WithError(err).WithField("dataset", dataset)
			if value != "" {
				entry = entry.WithField(field, value)
			}
			if fix != "" {
				entry = entry.WithField("fix", fix)
			}
			entry.Warn("failed to destroy dataset")
		}
	}
}

// hasClone reports whether a dataset has a clone of ours. It also reports true for the
// partial dataset of a runtime that is garbage: if the killed commit promoted it, the
// runtime is its clone.
func (x *index) hasClone(dataset string) bool {
	if x.isPartialOfGarbage(dataset) {
		return true
	}
	return slices.ContainsFunc(x.nodes(KeepForever, time.Now()), func(n space.Node) bool { return n.Origin == dataset })
}

func (x *index) isPartialOfGarbage(dataset string) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	t := x.garbage[dataset]
	return t != nil && x.garbage[t.runtime] != nil
}

// describeUsers describes the processes that use a file system without a mount point. It
// returns "" if it finds none.
func (s *Snapshotter) describeUsers(ctx context.Context, dataset string) string {
	device, err := s.pool.Device(ctx, dataset)
	if err != nil {
		return ""
	}
	var words []string
	for _, u := range s.config.users(device) {
		words = append(words, u.String())
	}
	return strings.Join(words, "; ")
}

// explain returns what keeps a dataset from being destroyed, its processes, mounts or
// snapshots, as a log field with its value, and a fix for the administrator. Each may be
// empty.
func (s *Snapshotter) explain(ctx context.Context, dataset string, err error, mounts []holders.Mount) (field, value, fix string) {
	switch {
	case errors.Is(err, zfs.ErrBusy) && len(mounts) == 0:
		const fix = "end the program that uses the dataset"
		if users := s.describeUsers(ctx, dataset); users != "" {
			return "holders", users, fix
		}
		return "holders", "no inspected process has the dataset mounted; a file may be open since a lazy unmount, or a snapshot may be held", fix
	case errors.Is(err, zfs.ErrBusy):
		var places []string
		for _, m := range mounts {
			places = append(places, m.String())
		}
		m := mounts[0]
		return "holders", strings.Join(places, "; "),
			fmt.Sprintf("end the program that uses the dataset, or unmount it in its mount namespace: nsenter -t %d -m umount %q", m.PID, m.Mountpoint)
	case errors.Is(err, zfs.ErrHasClones):
		return "", "", fmt.Sprintf("destroy or promote the foreign clones of its snapshots, which 'zfs list -r -t snapshot -o name,clones %s' lists", dataset)
	case errors.Is(err, zfs.ErrForeign):
		list, listErr := s.pool.List(ctx, dataset)
		if listErr != nil {
			return "", "", ""
		}
		var names []string
		for _, d := range list {
			if d.Name == dataset {
				names = state.ForeignSnapshots(d)
			}
		}
		return "snapshots", strings.Join(names, ", "), ""
	}
	return "", "", ""
}
