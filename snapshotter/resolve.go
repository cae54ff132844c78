package snapshotter

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/zfstpl/zfstpl/snapshotter/internal/index"
	"github.com/zfstpl/zfstpl/snapshotter/internal/recovery"
)

// A killed command or an interrupted call does not report what it did. If it was that of a
// commit, the snapshot is unavailable until resolve has found out.

// settle finds out whether a commit that just failed took effect.
func (s *Snapshotter) settle(ctx context.Context, u index.Unresolved) (committed bool, err error) {
	s.index.Suspend(u)
	r, err := s.resolveOne(ctx, u, false)
	return r.Committed, err
}

// resolve undoes the last commit of an active snapshot if its outcome is not known. It
// ignores what the commit left and cannot be destroyed. The caller holds the lock of the key.
func (s *Snapshotter) resolve(ctx context.Context, active *index.Entry) error {
	if u, ok := s.index.UnresolvedOf(active.Dataset); ok && !u.Undone {
		if r, err := s.resolveOne(ctx, u, true); err != nil && !r.Undone {
			return err
		}
	}
	return nil
}

// resolveWhole is resolve before another commit. It fails if anything is left.
func (s *Snapshotter) resolveWhole(ctx context.Context, active *index.Entry) error {
	u, ok := s.index.UnresolvedOf(active.Dataset)
	if !ok {
		return nil
	}
	_, err := s.resolveOne(ctx, u, true)
	return err
}

func (s *Snapshotter) resolveOne(ctx context.Context, u index.Unresolved, late bool) (recovery.Resolution, error) {
	ctx = context.WithoutCancel(ctx)
	var r recovery.Resolution
	err := s.reaper.WithReclaim(ctx, func() (err error) {
		r, err = recovery.Resolve(ctx, s.pool, s.config.Base, u, late)
		return err
	})
	switch {
	case err == nil:
		s.index.Resolved(u, r.Taken)
		return r, nil
	case r.Freed:
		s.index.Resolved(u, false)
		s.index.Suspend(index.Unresolved{Runtime: u.Runtime, Undone: true})
	case r.Undone:
		u.Undone = true
		s.index.Suspend(u)
	}
	return r, fmt.Errorf("a commit of %s was interrupted, and its outcome is not known or not undone; try again when the pool responds: %w: %w",
		u.Runtime, errdefs.ErrUnavailable, err)
}

// resolveAll resolves what it can. No operation runs meanwhile.
func (s *Snapshotter) resolveAll(ctx context.Context) {
	for _, u := range s.index.AllUnresolved() {
		// The next start resolves what is left.
		_, _ = s.resolveOne(ctx, u, true)
	}
}

// resolveKey is resolve for a method that only reads.
func (s *Snapshotter) resolveKey(ctx context.Context, key string) error {
	if !s.index.IsUnresolved(key) {
		return nil
	}
	return detachErr(ctx, s.gate, func(ctx context.Context) error {
		unlock, err := s.locks.keys.Lock(ctx, key)
		if err != nil {
			return err
		}
		defer unlock()
		active, err := s.index.Get(key)
		if err != nil {
			return err
		}
		return s.resolve(ctx, active)
	})
}
