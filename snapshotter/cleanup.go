package snapshotter

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/containerd/log"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/space"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// Cleanup is what containerd calls after each garbage collection. It is Clean
// where that is when cleanups are to be. Else it only writes what removals are left,
// and says that there may be something to do.
func (s *Snapshotter) Cleanup(ctx context.Context) error {
	return settleErr(ctx, s, func(ctx context.Context) error {
		s.background.requestCleanup()
		if s.config.Cleanup.orDefault() != CleanupGC {
			return poolError("cleanup", s.queue.flush(ctx))
		}
		return s.clean(ctx)
	})
}

// Clean destroys what nobody needs, trash and templates that have been warm for
// longer than they are kept, and writes what removals are left. Then it evicts warm
// templates that are too many, or for which there is too little room. What cannot
// be destroyed now, because it is mounted or carries somebody else's snapshot,
// stays and is no error: it is tried again by the next one.
//
// One runs at a time. It ends within a batch of datasets when ctx does, and with
// ErrAborted when Stop is called; what it has not destroyed is for the next one.
// tell, where it is not nil, hears of its progress.
func (s *Snapshotter) Clean(ctx context.Context, tell func(Progress)) error {
	s.closing.RLock()
	defer s.closing.RUnlock()
	if err := s.usable(); err != nil {
		return err
	}
	s.background.requestCleanup()
	return s.clean(withAsked(withProgress(ctx, tell)))
}

// StopCleanup ends the cleanup that runs and answers whether there was one. One in
// the background does not begin again before somebody asks for a cleanup, and nothing
// is evicted under pressure before that. Where room is made for a caller that waits,
// that goes on.
func (s *Snapshotter) StopCleanup() bool {
	s.background.pause()
	return s.cleanup.stop(errStopped, false)
}

func (s *Snapshotter) clean(ctx context.Context) error {
	release, err := s.cleanup.acquire(ctx)
	if err != nil {
		return err
	}
	defer release()
	return s.cleanLocked(s.cleanup.cancelable(ctx, false))
}

// cleanWithin is a cleanup that others may end. The caller has the turn.
func (s *Snapshotter) cleanLocked(ctx context.Context) error {
	if err := s.usable(); err != nil { // since it waited for its turn
		return err
	}
	_, err := s.cleanWithPolicy(ctx, s.config.policy())
	if err == nil {
		s.background.cleanupDone()
	}
	return endReason(ctx, err)
}

// cleanBy is a cleanup and a sweep by some policy. The caller has the turn.
func (s *Snapshotter) cleanWithPolicy(ctx context.Context, policy space.Policy) (evicted, error) {
	old, err := s.cleanGarbage(ctx)
	if err != nil {
		return old, err
	}
	gone, err := s.evict(ctx, policy)
	gone.templates, gone.bytes = gone.templates+old.templates, gone.bytes+old.bytes
	if err != nil {
		return gone, poolError("sweep", err)
	}
	s.queue.poke() // what is owed is another now
	return gone, poolError("cleanup", s.queue.flush(ctx))
}

func (s *Snapshotter) cleanGarbage(ctx context.Context) (old evicted, err error) {
	defer s.background.notify()
	// Where there is no room for that, destroying makes some, and touches nothing that
	// is in use.
	if err := s.queue.catchUp(ctx); err != nil && !outOfSpace(err) {
		return old, poolError("cleanup", err)
	}
	if err := s.releaseMounts(ctx); err != nil {
		return old, err
	}
	if old, err = s.destroyGarbage(ctx); err != nil {
		return old, poolError("cleanup", err)
	}
	if err := s.queue.flush(ctx); err != nil && !outOfSpace(err) {
		return old, poolError("cleanup", err)
	}
	return old, nil
}

// destroyDoomed destroys what nobody needs, and answers which cached templates were
// among that, for their age.
func (s *Snapshotter) destroyGarbage(ctx context.Context) (old evicted, err error) {
	may := func(t *template) bool { return t.expired(s.config.CacheKeep) }
	nodes := s.index.nodes(s.config.CacheKeep, retryTime(ctx))
	if slices.ContainsFunc(nodes, func(n space.Node) bool { return n.Layer && n.Destroy && n.Bytes == 0 }) {
		// It is told of them what comes back.
		if err := s.measureCached(ctx); err != nil {
			return old, err
		}
		nodes = s.index.nodes(s.config.CacheKeep, retryTime(ctx))
	}
	gone, err := s.destroyAll(ctx, space.Order(nodes), may)
	if len(gone) > 0 {
		log.G(ctx).WithField("datasets", len(gone)).Debug("cleanup destroyed what nobody needs")
	}
	for _, n := range nodes {
		if n.Layer && slices.Contains(gone, n.Dataset) {
			old.add(ctx, space.Eviction{Dataset: n.Dataset, Bytes: n.Bytes, Cached: true, LastUsed: n.LastUsed, Reason: space.UnusedReason(n.LastUsed, time.Now())})
		}
	}
	return old, err
}

// destroyAll destroys datasets, leaf first as they are given, and answers which are
// gone. A runtime whose removal is still to be written needs no writing: it is removed
// when it is destroyed, and of a crash in between containerd sees one that it
// removes again.
func (s *Snapshotter) destroyAll(ctx context.Context, order []string, may func(*template) bool) (gone []string, err error) {
	defer s.queue.holdBack()()
	tell := progressOf(ctx, len(order))
	err = s.inBatches(ctx, order, func(batch []string) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		var destroyed []string
		err := s.queue.overtake(ctx, s.templatesIn(batch), func() (_ []string, err error) {
			destroyed, err = s.destroy(ctx, batch, may)
			return destroyed, err
		})
		gone = append(gone, destroyed...)
		tell(len(batch), len(destroyed))
		return err
	})
	return gone, err
}

// nodes is the tree of clones as the index knows it. What could not be
// destroyed is not tried again before its time.
func (x *index) nodes(keep time.Duration, now time.Time) []space.Node {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var nodes []space.Node
	for dataset, t := range x.templates {
		n := space.Node{Dataset: dataset}
		if t.cached() && !x.stuck[dataset].isWaiting(now) {
			n.Cached, n.Layer, n.Destroy = true, !t.IsOpaque(), t.expired(keep)
			n.LastUsed, n.Bytes = t.idle, t.bytes
		}
		if t.parent != nil {
			n.Origin = t.parent.Dataset()
		}
		nodes = append(nodes, n)
	}
	for dataset, t := range x.garbage {
		n := space.Node{Dataset: dataset, Destroy: !x.stuck[dataset].isWaiting(now)}
		if t.origin != nil {
			n.Origin = t.origin.Dataset()
		} else if x.garbage[t.of] != nil {
			n.Origin = t.of
		}
		nodes = append(nodes, n)
	}
	for _, r := range x.records {
		if r.dataset != "" && r.template != nil && r.dataset != r.template.Dataset() {
			nodes = append(nodes, space.Node{Dataset: r.dataset, Origin: r.template.Dataset()})
		}
	}
	return nodes
}

// expired tells whether a template may go: nobody can ask for an opaque one
// again, a layer is kept for a while.
func (t *template) expired(keep time.Duration) bool {
	if !t.cached() {
		return false
	}
	return t.IsOpaque() || space.Policy{Keep: keep}.Expired(t.idle, time.Now())
}

// destroy destroys a batch of datasets and answers which are gone: trash, and of
// templates those that still may go. Whatever is being committed or revived right
// now is left for another time: who does so may be waiting for this cleanup.
func (s *Snapshotter) destroy(ctx context.Context, batch []string, may func(*template) bool) (gone []string, err error) {
	// A commit of the same layer waits here until the name is free again.
	locked, unlock := s.data.tryLockEach(batch...)
	defer unlock()
	dying := s.index.beginDestroy(locked, may)
	order := slices.DeleteFunc(slices.Clone(locked), func(dataset string) bool { _, ok := dying[dataset]; return !ok })
	if len(order) == 0 {
		return nil, nil
	}
	if s.verify {
		still, err := s.stillGo(ctx, order)
		if err != nil {
			s.index.finishDestroy(dying, order, func(string) bool { return true })
			return nil, err
		}
		s.index.finishDestroy(nil, order, func(dataset string) bool { return slices.Contains(still, dataset) })
		order = still
	}
	left, err := s.destroyDatasets(ctx, order)
	for dataset, why := range left {
		if snapshotLost(why) {
			dying[dataset] = nil // no template any more: it stays in the trash
		}
	}
	if err != nil {
		// A context's error is answered before anything is done; a program that was begun
		// goes on when its caller has gone, and may be killed then too.
		begun := !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded)
		if begun && ambiguous(err) {
			clear(dying) // any of them may have lost its snapshot
		}
		s.index.finishDestroy(dying, order, func(string) bool { return true })
		return nil, err
	}
	s.index.finishDestroy(dying, order, func(dataset string) bool { return left[dataset] != nil })
	s.reportLeftovers(ctx, left)
	return slices.DeleteFunc(order, func(dataset string) bool { return left[dataset] != nil }), nil
}

func (s *Snapshotter) destroyDatasets(ctx context.Context, order []string) (map[string]error, error) {
	for _, dataset := range order {
		if err := s.releaseMount(ctx, dataset); err != nil {
			return nil, err
		}
		if err := s.release(ctx, dataset); err != nil {
			if ctx.Err() != nil {
				return nil, err
			}
			// It is busy then, and destroying it finds that out.
			log.G(ctx).WithError(err).WithField("dataset", dataset).Warn("held mount of a removed snapshot not unmounted")
		}
	}
	var left map[string]error
	destroy := func() (err error) { left, err = s.pool.Destroy(ctx, layout.Extracted, order); return err }
	if isIdle(ctx) {
		inner := destroy
		destroy = func() error { return zfs.WithIdleIO(inner) }
	}
	if err := destroy(); err != nil {
		return left, err
	}
	return s.destroyForeign(ctx, order, left)
}

// isHalf tells whether a dataset that was to be destroyed has lost its snapshot, and
// with it what can be cloned.
func snapshotLost(why error) bool {
	var e *zfs.Error
	return errors.As(why, &e) && e.SnapshotLost
}

// isTemplate answers what tells which of a batch lie under storage.
func (s *Snapshotter) templatesIn(batch []string) func(dataset string) bool {
	return func(dataset string) bool {
		_, ok := s.config.Base.ParseTemplate(dataset)
		return ok && slices.Contains(batch, dataset)
	}
}

// condemn takes those of the batch that still may go out of use. It answers
// them, with the template for those that were one.
func (x *index) beginDestroy(batch []string, may func(*template) bool) map[string]*template {
	x.mu.Lock()
	defer x.mu.Unlock()
	dying := make(map[string]*template)
	for _, dataset := range batch {
		t := x.templates[dataset]
		switch {
		case t != nil && may(t):
			delete(x.templates, dataset)
			x.discard(dataset, t.parent)
			dying[dataset] = t
		case t == nil && x.garbage[dataset] != nil:
			dying[dataset] = nil
		}
	}
	return dying
}

// reprieve forgets what was destroyed and takes back into use what was not.
func (x *index) finishDestroy(dying map[string]*template, order []string, left func(string) bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, dataset := range order {
		if !left(dataset) {
			delete(x.garbage, dataset)
			delete(x.stuck, dataset)
			delete(x.doubtful, dataset)
		} else if t := dying[dataset]; t != nil {
			x.templates[dataset] = t
			delete(x.garbage, dataset)
		}
	}
}
