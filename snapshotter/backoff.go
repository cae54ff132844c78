package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/containerd/log"

	"github.com/zfstpl/zfstpl/snapshotter/holders"
	"github.com/zfstpl/zfstpl/snapshotter/space"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// A dataset that could not be destroyed is tried again by the next cleanup, which
// comes by itself after firstRetry; then again after firstRetry, and after twice
// as long each time up to lastRetry. When the reason changes, this begins anew:
// whoever held it has done something.
const (
	minBackoff = time.Second
	maxBackoff = 10 * time.Minute
)

// stuck is a dataset that could not be destroyed.
type stuck struct {
	reason string
	pause  time.Duration
	next   time.Time // no cleanup tries again before
}

// waits tells whether it is too early to try again.
func (k *stuck) isWaiting(now time.Time) bool { return k != nil && now.Before(k.next) }

// holdBack notes that a dataset could not be destroyed, and answers whether the
// reason is a new one.
func (x *index) backOff(dataset, reason string, now time.Time) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	k := x.stuck[dataset]
	anew := k == nil || k.reason != reason
	if anew {
		k = &stuck{reason: reason}
		x.stuck[dataset] = k
	} else {
		k.pause = min(max(2*k.pause, minBackoff), maxBackoff)
	}
	k.next = now.Add(k.pause)
	return anew
}

// letWait forgets why a dataset was stuck, and since when: it waits for a clone of ours
// now, which has a time of its own.
func (x *index) clearBackoff(dataset string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.stuck, dataset)
}

// nextRetry answers when the next dataset is to be tried again, and whether
// there is one. It forgets those that are in use again. One that is warm only a
// sweep wants to go, and a sweep comes when there is need.
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

// nextDoomed answers since when, or from when on, a cleanup can destroy something,
// and whether there will be anything.
func (x *index) nextDestroy(keep time.Duration, now time.Time) (next time.Time, ok bool) {
	can := make(map[string]bool) // now; others have a clone that stays
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

// complain puts datasets off that could not be destroyed, and says once why and
// what to do. A clone of ours that could not go keeps its origin: the line about
// the clone is enough.
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
		field, why, todo := s.explain(ctx, dataset, err, found[dataset])
		if s.index.backOff(dataset, err.Error()+why, time.Now()) {
			entry := log.G(ctx).WithError(err).WithField("dataset", dataset)
			if why != "" {
				entry = entry.WithField(field, why)
			}
			entry.Warn("a dataset nobody needs could not be destroyed and will be tried again" + todo)
		}
	}
}

// hasClone tells whether a dataset has a clone that is ours. What a killed commit left
// may be the runtime's clone or, where it came to promote it, the runtime be that one's.
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
	return t != nil && x.garbage[t.of] != nil
}

// usersOf returns in words which processes use a file system that is mounted nowhere.
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

// explain finds out what an error does not say: who holds a dataset, or which
// snapshots do. It answers a word for that, and what can be done.
func (s *Snapshotter) explain(ctx context.Context, dataset string, err error, mounts []holders.Mount) (field, why, todo string) {
	switch {
	case errors.Is(err, zfs.ErrBusy) && len(mounts) == 0:
		if users := s.describeUsers(ctx, dataset); users != "" {
			return "held", users, ": end the program that uses it"
		}
		return "held", "no process that could be looked at has it mounted; a file on it may be open since it was unmounted lazily, or a snapshot of it may be held",
			": end the program that uses it"
	case errors.Is(err, zfs.ErrBusy):
		var places []string
		for _, m := range mounts {
			places = append(places, m.String())
		}
		m := mounts[0]
		return "held", strings.Join(places, "; "),
			fmt.Sprintf(": end the program that uses it, or unmount it there (nsenter -t %d -m umount %q)", m.PID, m.Mountpoint)
	case errors.Is(err, zfs.ErrHasClones):
		return "", "", ": somebody made a clone of a snapshot of it ('zfs list -r -t snapshot -o name,clones' tells), which has to go or be promoted first"
	case errors.Is(err, zfs.ErrForeign):
		list, listErr := s.pool.List(ctx, dataset)
		if listErr != nil {
			return "", "", ""
		}
		var names []string
		for _, d := range list {
			if d.Name == dataset {
				names = foreignSnapshots(d)
			}
		}
		return "snapshots", strings.Join(names, ", "), ""
	}
	return "", "", ""
}
