package snapshotter

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"

	"github.com/zfstpl/zfstpl/snapshotter/errkind"
	"github.com/zfstpl/zfstpl/snapshotter/internal/journal"
	"github.com/zfstpl/zfstpl/snapshotter/internal/recordlog"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/setup"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// openLog opens the log of the base, or creates it, and replays it into a listing. It fails if
// the log does not belong to the state of the pool: then it is not known which runtimes are
// garbage.
func (s *Snapshotter) openLog(ctx context.Context, list []zfs.Dataset) error {
	base := s.config.Base
	position, err := recordlog.PositionIn(base, list)
	if err != nil {
		return err
	}
	if s.config.Root == nil {
		if position != (recordlog.Position{}) {
			return fmt.Errorf("dataset %s has a log, and its root directory is not given: %w", base, errdefs.ErrFailedPrecondition)
		}
		return nil
	}
	if position == (recordlog.Position{}) {
		return s.createLog(ctx)
	}
	contents, readErr := s.config.logDir().Read(base)
	if err := recordlog.Check(base, position, contents, readErr); err != nil {
		return fmt.Errorf("%w: %w", errdefs.ErrFailedPrecondition, err)
	}
	missing := recordlog.Replay(list, contents)
	if n := len(contents.Entries); n > 0 {
		log.G(ctx).WithField("entries", n).WithField("datasets", len(missing)).Debug("replayed log")
	}
	file, err := s.config.logDir().Open(base, contents)
	if err != nil {
		return fmt.Errorf("log of %s: %w", base, err)
	}
	s.journal.UseLog(base.String(), file, contents, missing)
	s.journal.CheckLog(ctx)
	return nil
}

// createLog creates the log of a base that has none. If the log cannot be used, changes of
// records are written to the pool.
func (s *Snapshotter) createLog(ctx context.Context) error {
	base := s.config.Base
	if err := s.config.CheckLog(ctx); err != nil {
		s.refuseLog(ctx, err)
		return nil
	}
	file, err := s.config.logDir().Create(base)
	if err != nil {
		s.refuseLog(ctx, err)
		return nil
	}
	err = s.pool.Apply(ctx,
		zfs.Set(base.String(), layout.VersionProperty, setup.VersionWithLog),
		zfs.Set(base.String(), recordlog.PositionProperty, file.Position().String()))
	if errkind.IsOutOfSpace(err) { // a cleanup may need this start
		s.refuseLog(ctx, err)
		return file.Close()
	}
	if err != nil {
		return errors.Join(errkind.Wrap("log of "+base.String(), err), file.Close())
	}
	s.journal.UseLog(base.String(), file, nil, nil)
	return nil
}

// refuseLog reports why the base gets no log.
func (s *Snapshotter) refuseLog(ctx context.Context, reason error) {
	log.G(ctx).WithError(reason).WithField("dataset", s.config.Base.String()).WithField("effect", journal.EffectOfNoLog).
		Warn("failed to create log of base")
	s.journal.Refuse(reason)
}

// LogError returns the reason why changes are not written to the log at present, or nil.
func (s *Snapshotter) LogError() error { return s.journal.LogError() }
