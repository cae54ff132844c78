package snapshotter

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"

	"github.com/zfstpl/zfstpl/snapshotter/errkind"
	"github.com/zfstpl/zfstpl/snapshotter/internal/index"
	"github.com/zfstpl/zfstpl/snapshotter/internal/reaper"
	"github.com/zfstpl/zfstpl/snapshotter/internal/record"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// Renew replaces the runtime of an extraction that ran out of space with cause. It
// destroys the runtime with its contents, reclaims space, and clones the template again
// under the same key. It returns the new runtime and a description of the reclaim. If
// the clone fails, the snapshot is removed.
//
// Renew returns FailedPrecondition, and changes nothing, if dataset is not the runtime of
// an extraction: any other runtime may hold the only copy of its contents.
func (s *Snapshotter) Renew(ctx context.Context, dataset string, cause error) (fresh, reclaimed string, err error) {
	result, err := detach(ctx, s.gate, func(ctx context.Context) ([2]string, error) {
		fresh, reclaimed, err := s.renew(ctx, dataset, cause)
		return [2]string{fresh, reclaimed.String()}, err
	})
	return result[0], result[1], err
}

func (s *Snapshotter) renew(ctx context.Context, dataset string, cause error) (string, reaper.Reclaimed, error) {
	key, err := s.index.Extraction(dataset)
	if err != nil {
		return "", reaper.Reclaimed{}, err
	}
	unlock, err := s.locks.keys.Lock(ctx, key)
	if err != nil {
		return "", reaper.Reclaimed{}, err
	}
	defer unlock()
	ctx, stop := s.index.UntilRemoved(ctx, key)
	defer stop()
	old, abandon, err := s.discardExtraction(ctx, key, dataset)
	if err != nil {
		return "", reaper.Reclaimed{}, err
	}
	// No clone is made if the caller gave up or the key was removed meanwhile: the
	// operation then ends as a Remove.
	reclaimed, err := s.reaper.Reclaim(ctx, cause)
	if err == nil && s.index.IsGarbage(dataset) {
		reclaimed, err = s.reaper.Reclaim(ctx, cause) // the first reclaim began before the runtime was garbage
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		abandon()
		return "", reclaimed, fmt.Errorf("failed to reclaim space for %q: %w", key, err)
	}
	r := &index.Entry{Record: record.Record{ID: layout.NewID(), Seq: s.index.Next(), Info: old.Info, Target: old.Target, Remapped: old.Remapped, Lost: old.Lost}, Template: old.Template}
	r.Dataset = s.config.Base.Clone(key, r.ID)
	if err := s.writeRecord(ctx, r, []zfs.Op{zfs.Clone(r.Template.Snapshot(), r.Dataset)}, s.pool.Apply); err != nil {
		abandon()
		return "", reclaimed, errkind.Wrap(fmt.Sprintf("clone for %q after a reclaim (%s)", key, reclaimed), err)
	}
	s.index.Add(r, r.Template, time.Now())
	return r.Dataset, reclaimed, nil
}

// discardExtraction removes an extraction's record, so that its runtime becomes garbage.
// The record's parent and template stay reserved until the caller calls abandon.
func (s *Snapshotter) discardExtraction(ctx context.Context, key, dataset string) (old *index.Entry, abandon func(), err error) {
	if old, err = s.index.Get(key); err != nil {
		return nil, nil, err
	}
	if old.Dataset != dataset {
		return nil, nil, fmt.Errorf("snapshot %q: %w", key, errdefs.ErrNotFound)
	}
	if err := s.resolve(ctx, old); err != nil {
		return nil, nil, fmt.Errorf("snapshot %q: %w", key, err)
	}
	err = s.change(ctx, fmt.Sprintf("discard of the extraction %q", key), old.Clear(), func() error { return s.rollBackDiscard(ctx, old) })
	if err != nil {
		return nil, nil, err
	}
	return old, s.index.DiscardRecord(old, time.Now()), nil
}

// Discard removes an extraction that does not fit, and runs a cleanup that destroys its
// runtime. It does nothing if dataset is not the runtime of an extraction.
func (s *Snapshotter) Discard(ctx context.Context, dataset string) error {
	return detachErr(ctx, s.gate, func(ctx context.Context) error {
		key, err := s.index.Extraction(dataset)
		if errdefs.IsFailedPrecondition(err) {
			return nil // removed already, or not an extraction
		}
		if err != nil {
			return err
		}
		if err := s.discard(ctx, key, dataset); err != nil {
			return err
		}
		if err := s.reaper.Clean(context.WithoutCancel(ctx), reaper.Options{}); err != nil {
			log.G(ctx).WithError(err).WithField("dataset", dataset).Warn("failed to destroy discarded extraction")
		}
		return nil
	})
}

func (s *Snapshotter) discard(ctx context.Context, key, dataset string) error {
	unlock, err := s.locks.keys.Lock(ctx, key)
	if err != nil {
		return err
	}
	defer unlock()
	_, abandon, err := s.discardExtraction(ctx, key, dataset)
	if err == nil {
		abandon()
	}
	return err
}
