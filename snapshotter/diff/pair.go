package diff

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/containerd/log"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// pair is two open sides of a comparison.
type pair struct {
	lower *side // nil to compare with nothing
	upper *side
	hint  hint
	// current records the file that is being processed, for the log. It may be nil.
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

// hint asks ZFS where two sides may differ. If ZFS does not know, everything is
// compared.
func (s *Service) hint(ctx context.Context, lower, upper *tree) (hint, error) {
	h, err := narrow(ctx, s.pool, lower, upper)
	if ctx.Err() != nil {
		return h, context.Cause(ctx)
	}
	if err != nil {
		log.G(ctx).WithError(err).WithField("lower", lower.name).WithField("upper", upper.name).
			Warn("failed to list changed objects; comparing all files")
		return hintAll(), nil
	}
	return h, nil
}

// layer writes the changes as a tar.
func (p *pair) layer(ctx context.Context, w io.Writer, epoch *time.Time) error {
	l := newLayer(ctx, w, &p.upper.tree, epoch)
	l.current = p.current
	if err := p.compare(ctx, l); err != nil {
		return err
	}
	return l.close()
}

// compare passes the changes to to.
func (p *pair) compare(ctx context.Context, to changes) error {
	c := comparison{ctx: ctx, upper: &p.upper.tree, hint: p.hint, to: to, current: p.current}
	if p.lower != nil {
		c.lower = &p.lower.tree
	}
	return c.run()
}

// closeInBackground closes both sides. It returns a function that waits for that and
// adds its error to another one. If only closing failed, the function logs that and
// returns nil, because the result is complete: the next start destroys a temporary
// snapshot that was busy.
func (p *pair) closeInBackground(ctx context.Context) (closed func(error) error) {
	ended := make(chan error, 1)
	go func() { ended <- p.close() }()
	return func(err error) error {
		closeErr := <-ended
		if err == nil && closeErr != nil {
			log.G(ctx).WithError(closeErr).WithField("snapshot", p.upper.name).
				Warn("failed to close snapshot after comparison; the next start destroys a temporary one")
			return nil
		}
		return errors.Join(err, closeErr)
	}
}

func (p *pair) close() error { return errors.Join(p.lower.close(), p.upper.close()) }

// side is an open snapshot.
type side struct {
	tree
	temporary *zfs.TemporarySnapshot // nil if the side is an existing snapshot
}

// openSide opens a snapshot, or takes and opens a temporary snapshot of a runtime.
func (s *Service) openSide(ctx context.Context, name string) (_ *side, err error) {
	opened := &side{tree: tree{name: name}}
	if _, ok := s.base.ParseRuntime(name); ok {
		if opened.temporary, err = s.pool.TakeTemporary(ctx, name); err != nil {
			return nil, zfsError(err)
		}
		opened.name = opened.temporary.Snapshot
	}
	if opened.root, err = s.pool.AttachRoot(ctx, opened.name); err != nil {
		return nil, errors.Join(zfsError(err), opened.close())
	}
	return opened, nil
}

// close closes a side, which may be nil.
func (s *side) close() error {
	if s == nil {
		return nil
	}
	var errs []error
	if s.root != nil {
		errs = append(errs, s.root.Close())
	}
	if s.temporary != nil {
		errs = append(errs, s.temporary.Close())
	}
	return errors.Join(errs...)
}
