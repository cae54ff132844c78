package reaper

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/containerd/log"

	"github.com/zfstpl/zfstpl/snapshotter/errkind"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/space"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// flush makes the journal durable.
func (r *Reaper) flush(ctx context.Context) error {
	return errkind.Wrap("cleanup", r.Journal.Settle(ctx, false))
}

func (r *Reaper) Clean(ctx context.Context, options Options) error {
	release, err := r.cleanup.acquire(ctx)
	if err != nil {
		return err
	}
	defer release()
	return r.cleanLocked(r.cleanup.cancelable(ctx, false), options)
}

// cleanLocked runs a cleanup. The caller holds r.cleanup, and ctx comes from its
// cancelable.
func (r *Reaper) cleanLocked(ctx context.Context, options Options) error {
	if err := r.cleanup.checkOpen(); err != nil { // may have changed while the caller waited for the lock
		return err
	}
	_, err := r.cleanWithPolicy(ctx, options, r.config.policy())
	if err == nil {
		r.background.cleanupDone()
	}
	return endReason(ctx, err)
}

// cleanWithPolicy destroys garbage and expired templates, then evicts by policy. It returns the
// templates that it destroyed. The caller holds r.cleanup.
func (r *Reaper) cleanWithPolicy(ctx context.Context, options Options, policy space.Policy) (total evicted, err error) {
	defer r.background.notify()
	// A refill pins its template, and what it makes would be left.
	resume, err := r.PauseReady(ctx)
	if err != nil {
		return total, err
	}
	defer resume()
	// In a full pool the write fails. The destruction that follows frees space, and does
	// not touch datasets in use.
	if err := r.Journal.Barrier(ctx); err != nil && !errkind.IsOutOfSpace(err) {
		return total, errkind.Wrap("cleanup", err)
	}
	if err := r.Mounts.ReleaseViews(ctx, r.Index.HasViews); err != nil {
		return total, err
	}
	if _, err := r.execute(ctx, options, nil, space.Policy{Keep: policy.Keep}, &total); err != nil {
		return total, errkind.Wrap("cleanup", err)
	}
	if err := r.Journal.Settle(ctx, options.urgent); err != nil && !errkind.IsOutOfSpace(err) {
		return total, errkind.Wrap("cleanup", err)
	}
	if err := r.evict(ctx, options, policy, &total); err != nil {
		return total, errkind.Wrap("eviction", err)
	}
	r.Journal.Notify() // the cleanup mark may have changed
	return total, errkind.Wrap("cleanup", r.Journal.Settle(ctx, options.urgent))
}

// destroyAll destroys the datasets of order in batches. In order every clone precedes its
// origin. may reports whether a template may still be destroyed. destroyAll returns the
// datasets that it destroyed, also if it fails.
//
// The journal does not write the removal of a runtime's record before, because the record is a
// property of the runtime and is destroyed with it. If the machine crashes before the destroy,
// the snapshot exists again, and containerd's next garbage collection removes it.
func (r *Reaper) destroyAll(ctx context.Context, options Options, order []string, may func(space.Node) bool) (gone []string, err error) {
	defer r.Journal.Pause()()
	options.progress.expect(len(order))
	err = r.inBatches(order, options.urgent, func(batch []string) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		var destroyed []string
		err := r.Journal.DestroyAndSkip(ctx, options.urgent, r.templatesIn(batch), func() (_ []string, err error) {
			destroyed, err = r.destroy(ctx, batch, may)
			return destroyed, err
		})
		gone = append(gone, destroyed...)
		options.progress.add(len(batch), len(destroyed))
		return err
	})
	if len(gone) > 0 {
		log.G(ctx).WithField("datasets", len(gone)).Debug("destroyed unused datasets")
	}
	return gone, err
}

// destroy destroys a batch of datasets, garbage and those templates for which may still
// reports true, and returns those that it destroyed. It skips datasets that
// another operation has locked: that operation may be waiting for this cleanup.
func (r *Reaper) destroy(ctx context.Context, batch []string, may func(space.Node) bool) (gone []string, err error) {
	// A commit of the same layer waits for this lock until the name is free again.
	locked, unlock := r.Datasets.TryLockEach(batch...)
	defer unlock()
	dying := r.Index.BeginDestroy(locked, may, time.Now())
	order := slices.DeleteFunc(slices.Clone(locked), func(dataset string) bool { _, ok := dying[dataset]; return !ok })
	if len(order) == 0 {
		return nil, nil
	}
	if r.verify {
		still, err := r.recheck(ctx, order)
		if err != nil {
			r.Index.FinishDestroy(dying, order, func(string) bool { return true })
			return nil, err
		}
		r.Index.FinishDestroy(nil, order, func(dataset string) bool { return slices.Contains(still, dataset) })
		order = still
	}
	left, err := r.destroyDatasets(ctx, order)
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
		r.Index.FinishDestroy(dying, order, func(string) bool { return true })
		return nil, err
	}
	r.Index.FinishDestroy(dying, order, func(dataset string) bool { return left[dataset] != nil })
	r.reportLeftovers(ctx, left)
	return slices.DeleteFunc(order, func(dataset string) bool { return left[dataset] != nil }), nil
}

// destroyDatasets unmounts and destroys datasets in the given order. It returns those
// that are left, each with the reason.
func (r *Reaper) destroyDatasets(ctx context.Context, order []string) (map[string]error, error) {
	for _, dataset := range order {
		if err := r.Mounts.ReleaseView(ctx, dataset, r.Index.HasViews); err != nil {
			return nil, err
		}
		if err := r.Mounts.Release(ctx, dataset); err != nil {
			if ctx.Err() != nil {
				return nil, err
			}
			// The destroy that follows reports the dataset as busy.
			log.G(ctx).WithError(err).WithField("dataset", dataset).Warn("failed to unmount held mount of removed snapshot")
		}
	}
	left, err := r.pool.Destroy(ctx, layout.Extracted, order)
	if err != nil {
		return left, err
	}
	return r.destroyForeign(ctx, order, left)
}

// snapshotLost reports whether a failed destroy has destroyed the @extracted of a dataset
// that is left: such a dataset can no longer be cloned.
func snapshotLost(err error) bool {
	var e *zfs.Error
	return errors.As(err, &e) && e.SnapshotLost
}

// templatesIn returns a function that reports whether a dataset is a template in batch.
func (r *Reaper) templatesIn(batch []string) func(dataset string) bool {
	return func(dataset string) bool {
		_, ok := r.config.Base.ParseTemplate(dataset)
		return ok && slices.Contains(batch, dataset)
	}
}
