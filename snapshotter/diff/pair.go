package diff

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/containerd/log"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// pair is two sides that are open, to be compared.
type pair struct {
	lower *side // nil for nothing at all
	upper *side
	hint  hint
	// current is what is looked at, where the log is to say so.
	current *current
}

// open opens both sides and asks ZFS where they may differ.
func (s *Service) open(ctx context.Context, sides Sides) (_ *pair, err error) {
	p := &pair{hint: hintAll()}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	if p.upper, err = s.openSide(ctx, sides.Upper); err != nil || sides.Lower == "" {
		return p, err
	}
	if p.lower, err = s.openSide(ctx, sides.Lower); err != nil {
		return p, err
	}
	if p.lower.name == p.upper.name {
		p.hint = hintNone()
		return p, nil
	}
	p.hint, err = s.hint(ctx, &p.lower.tree, &p.upper.tree)
	return p, err
}

// hint asks ZFS where to look. It may not know: then it is looked everywhere.
func (s *Service) hint(ctx context.Context, lower, upper *tree) (hint, error) {
	h, err := narrow(ctx, s.pool, lower, upper)
	if ctx.Err() != nil {
		return h, context.Cause(ctx)
	}
	if err != nil {
		log.G(ctx).WithError(err).WithField("lower", lower.name).WithField("upper", upper.name).
			Warn("ZFS does not tell what changed between two snapshots: all that is in them is compared, which takes longer")
		return hintAll(), nil
	}
	return h, nil
}

// layer writes what changed as a tar.
func (p *pair) layer(ctx context.Context, w io.Writer, epoch *time.Time) error {
	l := newLayer(ctx, w, &p.upper.tree, epoch)
	l.current = p.current
	if err := p.compare(ctx, l); err != nil {
		return err
	}
	return l.close()
}

// compare tells what changed.
func (p *pair) compare(ctx context.Context, to changes) error {
	c := comparison{ctx: ctx, upper: &p.upper.tree, hint: p.hint, to: to, current: p.current}
	if p.lower != nil {
		c.lower = &p.lower.tree
	}
	return c.run()
}

// closing closes both sides, and answers what waits for that and adds to an error
// how it went. What is whole is not thrown away for a snapshot that somebody
// holds: that one goes at the next start.
func (p *pair) closeInBackground(ctx context.Context) (closed func(error) error) {
	ended := make(chan error, 1)
	go func() { ended <- p.close() }()
	return func(err error) error {
		closeErr := <-ended
		if err == nil && closeErr != nil {
			log.G(ctx).WithError(closeErr).WithField("snapshot", p.upper.name).
				Warn("what was compared could not be let go of; a temporary snapshot goes at the next start")
			return nil
		}
		return errors.Join(err, closeErr)
	}
}

func (p *pair) close() error { return errors.Join(p.lower.close(), p.upper.close()) }

// side is a snapshot that is open.
type side struct {
	tree
	frozen *zfs.TemporarySnapshot // where it was taken for this
}

// openSide opens a snapshot, or a file system as it is now.
func (s *Service) openSide(ctx context.Context, name string) (_ *side, err error) {
	opened := &side{tree: tree{name: name}}
	if _, ok := s.base.ParseRuntime(name); ok {
		if opened.frozen, err = s.pool.TakeTemporary(ctx, name); err != nil {
			return nil, zfsError(err)
		}
		opened.name = opened.frozen.Snapshot
	}
	if opened.root, err = s.pool.AttachRoot(ctx, opened.name); err != nil {
		return nil, errors.Join(zfsError(err), opened.close())
	}
	return opened, nil
}

// close closes a side, if there is one.
func (s *side) close() error {
	if s == nil {
		return nil
	}
	var errs []error
	if s.root != nil {
		errs = append(errs, s.root.Close())
	}
	if s.frozen != nil {
		errs = append(errs, s.frozen.Close())
	}
	return errors.Join(errs...)
}
