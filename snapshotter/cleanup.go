package snapshotter

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/containerd/log"

	"github.com/zfstpl/zfstpl/snapshotter/errkind"
	"github.com/zfstpl/zfstpl/snapshotter/internal/index"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/space"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// Cleanup implements snapshots.Cleaner: containerd calls it after each garbage
// collection. In mode CleanupGC it runs a cleanup. In the other modes it writes pending
// removals and notifies the background goroutine.
func (s *Snapshotter) Cleanup(ctx context.Context) error {
	return detachErr(ctx, s, func(ctx context.Context) error {
		s.background.requestCleanup()
		if s.config.Cleanup.orDefault() != CleanupGC {
			return errkind.Wrap("cleanup", s.journal.Flush(ctx))
		}
		return s.clean(ctx, cleanupOptions{})
	})
}

// Clean runs a cleanup in every mode. It writes pending removals and destroys garbage
// and expired cached templates. Then it evicts cached templates that exceed a limit.
// A dataset that cannot be destroyed, because it is mounted or has a foreign snapshot,
// is not an error: the next cleanup tries it again.
//
// One cleanup runs at a time. If ctx is cancelled, Clean returns after the current batch
// of datasets. If StopCleanup is called, it does so with ErrAborted. The next cleanup
// destroys the rest. If report is not nil, Clean calls it with its progress.
func (s *Snapshotter) Clean(ctx context.Context, report func(Progress)) error {
	s.closing.RLock()
	defer s.closing.RUnlock()
	if err := s.checkOpen(); err != nil {
		return err
	}
	s.background.requestCleanup()
	return s.clean(ctx, cleanupOptions{ignoreBackoff: true, progress: newProgressReporter(report)})
}

// StopCleanup stops the running cleanup and reports whether there was one. Until the
// next request for a cleanup, no background cleanup begins and nothing is evicted under
// pressure. StopCleanup does not stop a reclaim, because callers wait for it.
func (s *Snapshotter) StopCleanup() bool {
	s.background.pause()
	return s.cleanup.stop(errStopped, false)
}

func (s *Snapshotter) clean(ctx context.Context, options cleanupOptions) error {
	release, err := s.cleanup.acquire(ctx)
	if err != nil {
		return err
	}
	defer release()
	return s.cleanLocked(s.cleanup.cancelable(ctx, false), options)
}

// cleanLocked runs a cleanup. The caller holds s.cleanup, and ctx comes from its
// cancelable.
func (s *Snapshotter) cleanLocked(ctx context.Context, options cleanupOptions) error {
	if err := s.checkOpen(); err != nil { // may have changed while the caller waited for the lock
		return err
	}
	_, err := s.cleanWithPolicy(ctx, options, s.config.policy())
	if err == nil {
		s.background.cleanupDone()
	}
	return endReason(ctx, err)
}

// cleanWithPolicy destroys garbage and expired templates, then evicts by policy. The
// caller holds s.cleanup.
func (s *Snapshotter) cleanWithPolicy(ctx context.Context, options cleanupOptions, policy space.Policy) (evicted, error) {
	expired, err := s.cleanGarbage(ctx, options)
	if err != nil {
		return expired, err
	}
	total, err := s.evict(ctx, options, policy)
	total.templates, total.bytes = total.templates+expired.templates, total.bytes+expired.bytes
	if err != nil {
		return total, errkind.Wrap("eviction", err)
	}
	s.journal.Notify() // the cleanup mark may have changed
	return total, errkind.Wrap("cleanup", s.journal.FlushPaced(ctx, options.urgent))
}

// cleanGarbage destroys garbage and expired templates, and returns the templates that it
// destroyed.
func (s *Snapshotter) cleanGarbage(ctx context.Context, options cleanupOptions) (expired evicted, err error) {
	defer s.background.notify()
	// In a full pool the write fails. The destruction that follows frees space, and does
	// not touch datasets in use.
	if err := s.journal.Barrier(ctx); err != nil && !errkind.IsOutOfSpace(err) {
		return expired, errkind.Wrap("cleanup", err)
	}
	if err := s.mounts.ReleaseViews(ctx, s.index.HasViews); err != nil {
		return expired, err
	}
	if expired, err = s.destroyGarbage(ctx, options); err != nil {
		return expired, errkind.Wrap("cleanup", err)
	}
	if err := s.journal.FlushPaced(ctx, options.urgent); err != nil && !errkind.IsOutOfSpace(err) {
		return expired, errkind.Wrap("cleanup", err)
	}
	return expired, nil
}

// destroyGarbage destroys garbage and expired templates, and returns the templates that
// it destroyed.
func (s *Snapshotter) destroyGarbage(ctx context.Context, options cleanupOptions) (expired evicted, err error) {
	may := func(t *index.Template) bool { return t.Expired(s.config.CacheKeep, time.Now()) }
	nodes := s.index.Nodes(s.config.CacheKeep, options.retryTime())
	if slices.ContainsFunc(nodes, func(n space.Node) bool { return n.Layer && n.Destroy && n.Bytes == 0 }) {
		// The log message about a template names its size.
		if err := s.measureCached(ctx); err != nil {
			return expired, err
		}
		nodes = s.index.Nodes(s.config.CacheKeep, options.retryTime())
	}
	gone, err := s.destroyAll(ctx, options, space.Order(nodes), may)
	if len(gone) > 0 {
		log.G(ctx).WithField("datasets", len(gone)).Debug("destroyed unused datasets")
	}
	for _, n := range nodes {
		if n.Layer && slices.Contains(gone, n.Dataset) {
			expired.add(ctx, space.Eviction{Dataset: n.Dataset, Bytes: n.Bytes, Cached: true, LastUsed: n.LastUsed, Reason: space.UnusedReason(n.LastUsed, time.Now())})
		}
	}
	return expired, err
}

// destroyAll destroys datasets in batches, in the given order, leaf first, and returns
// those that it destroyed. The pending removal of a runtime is not written: destroying
// the runtime removes its record too. After a crash before that, containerd finds the
// snapshot and removes it again.
func (s *Snapshotter) destroyAll(ctx context.Context, options cleanupOptions, order []string, may func(*index.Template) bool) (gone []string, err error) {
	defer s.journal.Pause()()
	options.progress.expect(len(order))
	err = s.inBatches(order, options.urgent, func(batch []string) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		var destroyed []string
		err := s.journal.DestroyAndSkip(ctx, options.urgent, s.templatesIn(batch), func() (_ []string, err error) {
			destroyed, err = s.destroy(ctx, options, batch, may)
			return destroyed, err
		})
		gone = append(gone, destroyed...)
		options.progress.add(len(batch), len(destroyed))
		return err
	})
	return gone, err
}

// destroy destroys a batch of datasets, garbage and those templates for which may still
// reports true, and returns those that it destroyed. It skips datasets that
// another operation has locked: that operation may be waiting for this cleanup.
func (s *Snapshotter) destroy(ctx context.Context, options cleanupOptions, batch []string, may func(*index.Template) bool) (gone []string, err error) {
	// A commit of the same layer waits for this lock until the name is free again.
	locked, unlock := s.datasets.TryLockEach(batch...)
	defer unlock()
	dying := s.index.BeginDestroy(locked, may, time.Now())
	order := slices.DeleteFunc(slices.Clone(locked), func(dataset string) bool { _, ok := dying[dataset]; return !ok })
	if len(order) == 0 {
		return nil, nil
	}
	if s.verify {
		still, err := s.recheck(ctx, order)
		if err != nil {
			s.index.FinishDestroy(dying, order, func(string) bool { return true })
			return nil, err
		}
		s.index.FinishDestroy(nil, order, func(dataset string) bool { return slices.Contains(still, dataset) })
		order = still
	}
	left, err := s.destroyDatasets(ctx, order, options.idle)
	for dataset, reason := range left {
		if snapshotLost(reason) {
			dying[dataset] = nil // not a template any more: it stays garbage
		}
	}
	if err != nil {
		// The pool returns a context's error only before a program begins. A program that
		// has begun continues after its caller gave up, and may be killed as well.
		begun := !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded)
		if begun && errkind.IsAmbiguous(err) {
			clear(dying) // each of them may have lost its snapshot
		}
		s.index.FinishDestroy(dying, order, func(string) bool { return true })
		return nil, err
	}
	s.index.FinishDestroy(dying, order, func(dataset string) bool { return left[dataset] != nil })
	s.reportLeftovers(ctx, left)
	return slices.DeleteFunc(order, func(dataset string) bool { return left[dataset] != nil }), nil
}

// destroyDatasets unmounts and destroys datasets in the given order. It returns those
// that are left, each with the reason. If idle is set, it uses idle I/O priority.
func (s *Snapshotter) destroyDatasets(ctx context.Context, order []string, idle bool) (map[string]error, error) {
	for _, dataset := range order {
		if err := s.mounts.ReleaseView(ctx, dataset, s.index.HasViews); err != nil {
			return nil, err
		}
		if err := s.mounts.Release(ctx, dataset); err != nil {
			if ctx.Err() != nil {
				return nil, err
			}
			// The destroy that follows reports the dataset as busy.
			log.G(ctx).WithError(err).WithField("dataset", dataset).Warn("failed to unmount held mount of removed snapshot")
		}
	}
	var left map[string]error
	destroy := func() (err error) { left, err = s.pool.Destroy(ctx, layout.Extracted, order); return err }
	if idle {
		inner := destroy
		destroy = func() error { return zfs.WithIdleIO(inner) }
	}
	if err := destroy(); err != nil {
		return left, err
	}
	return s.destroyForeign(ctx, order, left)
}

// snapshotLost reports whether a failed destroy has destroyed the @extracted of a dataset
// that is left: such a dataset can no longer be cloned.
func snapshotLost(err error) bool {
	var e *zfs.Error
	return errors.As(err, &e) && e.SnapshotLost
}

// templatesIn returns a function that reports whether a dataset is a template in batch.
func (s *Snapshotter) templatesIn(batch []string) func(dataset string) bool {
	return func(dataset string) bool {
		_, ok := s.config.Base.ParseTemplate(dataset)
		return ok && slices.Contains(batch, dataset)
	}
}
