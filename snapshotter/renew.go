package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// Renew begins an extraction anew that ran out of room: it destroys the runtime
// and all that is in it, makes room, and answers a fresh clone with the same key,
// and in words what making room came to. Where the clone cannot be made the
// snapshot is gone, as if it had been removed. cause is what ZFS answered.
//
// FailedPrecondition, and nothing is done, where the dataset is no runtime that a
// layer is being unpacked into: what else is in it may be the only copy.
func (s *Snapshotter) Renew(ctx context.Context, dataset string, cause error) (fresh, made string, err error) {
	answer, err := settle(ctx, s, func(ctx context.Context) ([2]string, error) {
		fresh, room, err := s.renew(ctx, dataset, cause)
		return [2]string{fresh, room.String()}, err
	})
	return answer[0], answer[1], err
}

func (s *Snapshotter) renew(ctx context.Context, dataset string, cause error) (string, Reclaimed, error) {
	key, err := s.index.extraction(dataset)
	if err != nil {
		return "", Reclaimed{}, err
	}
	unlock, err := s.keys.lock(ctx, key)
	if err != nil {
		return "", Reclaimed{}, err
	}
	defer unlock()
	ctx, stop := s.index.untilRemoved(ctx, key)
	defer stop()
	old, abandon, err := s.discardExtraction(ctx, key, dataset)
	if err != nil {
		return "", Reclaimed{}, err
	}
	// A caller that is gone by now gets no clone, nor does one whose key was removed: what
	// was begun ends as a Remove.
	room, err := s.reclaimSpace(ctx, cause)
	if err == nil && s.index.isGarbage(dataset) {
		room, err = s.reclaimSpace(ctx, cause) // the first was under way before there was this to destroy
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		abandon()
		return "", room, fmt.Errorf("making room for %q: %w", key, err)
	}
	r := &record{id: layout.NewID(), seq: s.index.next(), info: old.info, template: old.template, target: old.target, remapped: old.remapped, lost: old.lost}
	r.dataset = s.config.Base.Clone(key, r.id)
	if err := s.writeClone(ctx, r, nil, s.pool.Apply); err != nil {
		abandon()
		return "", room, poolError(fmt.Sprintf("fresh clone for %q, though %s", key, room), err)
	}
	s.index.add(r, r.template)
	return r.dataset, room, nil
}

func (x *index) isGarbage(dataset string) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.garbage[dataset] != nil
}

// extraction answers the key of the extraction that has this runtime.
func (x *index) extraction(dataset string) (key string, err error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, r := range x.on[dataset] {
		if r.template != nil && r.standsFor == "" && extracts(r.info) {
			return r.info.Name, nil
		}
	}
	return "", fmt.Errorf("%s is not a layer that is being unpacked: %w", dataset, errdefs.ErrFailedPrecondition)
}

// discardPartial takes an extraction's record from its runtime, which is trash then.
// The place of the record is kept: abandon gives it up.
func (s *Snapshotter) discardExtraction(ctx context.Context, key, dataset string) (old *record, abandon func(), err error) {
	x := s.index
	if old, err = x.get(key); err != nil {
		return nil, nil, err
	}
	if old.dataset != dataset {
		return nil, nil, fmt.Errorf("snapshot %q: %w", key, errdefs.ErrNotFound)
	}
	doing := fmt.Sprintf("discard of what was unpacked for %q", key)
	if err := s.catchUp(ctx); err != nil {
		return nil, nil, poolError(doing, err)
	}
	ops := append(old.clear(), zfs.Set(dataset, propGarbage, stamp(time.Now())))
	if err := s.apply(ctx, ops...); err != nil {
		if ambiguous(err) {
			err = errors.Join(err, s.undoDiscard(ctx, old))
		}
		return nil, nil, poolError(doing, err)
	}
	x.mu.Lock()
	x.adopt(old.info.Parent)
	old.template.pins++
	x.drop(old)
	x.discard(dataset, old.template)
	x.dropStray(dataset)
	x.mu.Unlock()
	return old, func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.disown(old.info.Parent)
		old.template.pins--
	}, nil
}

// Discard removes an extraction for which there is no room, and destroys what is
// in its runtime at once. It does nothing to what is no extraction.
func (s *Snapshotter) Discard(ctx context.Context, dataset string) error {
	return settleErr(ctx, s, func(ctx context.Context) error {
		key, err := s.index.extraction(dataset)
		if errdefs.IsFailedPrecondition(err) {
			return nil // it is gone already, or is not ours to remove
		}
		if err != nil {
			return err
		}
		if err := s.discard(ctx, key, dataset); err != nil {
			return err
		}
		if err := s.clean(context.WithoutCancel(ctx)); err != nil {
			log.G(ctx).WithError(err).WithField("dataset", dataset).Warn("what was unpacked of a layer that does not fit waits for the next cleanup")
		}
		return nil
	})
}

func (s *Snapshotter) discard(ctx context.Context, key, dataset string) error {
	unlock, err := s.keys.lock(ctx, key)
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
