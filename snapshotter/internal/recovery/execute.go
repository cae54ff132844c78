package recovery

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/containerd/log"

	"github.com/zfstpl/zfstpl/snapshotter/errkind"
	"github.com/zfstpl/zfstpl/snapshotter/internal/index"
	"github.com/zfstpl/zfstpl/snapshotter/internal/record"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// Pool has the operations of ZFS that recovery needs.
type Pool interface {
	List(ctx context.Context, root string) ([]zfs.Dataset, error)
	Apply(ctx context.Context, ops ...zfs.Op) error
	Destroy(ctx context.Context, own string, filesystems []string) (map[string]error, error)
	DestroySnapshot(ctx context.Context, snapshot string) error
	SetNative(ctx context.Context, filesystem string, props map[string]string) error
}

// Execute changes the pool as planned, and the index where the pool refuses a change. The
// caller writes p.Removals and p.Repairs. It fails if the pool is suspended or ctx ends; the
// next start then plans again.
func (p *Plan) Execute(ctx context.Context, pool Pool) error {
	p.logFindings(ctx)
	for _, d := range p.mountpoints {
		resetMountpoint(ctx, pool, d)
	}
	for _, active := range p.promotes {
		if err := p.promote(ctx, pool, active); err != nil {
			return err
		}
	}
	if err := p.rollBack(ctx, pool); err != nil {
		return err
	}
	for _, snapshot := range p.temporary {
		// A snapshot that a comparison still uses is busy and is kept.
		if err := pool.DestroySnapshot(ctx, snapshot); err != nil {
			dataset, _, _ := strings.Cut(snapshot, "@")
			log.G(ctx).WithError(err).WithField("dataset", dataset).Info("failed to destroy temporary snapshot")
		}
	}
	return nil
}

func (p *Plan) logFindings(ctx context.Context) {
	for _, s := range p.skipped {
		log.G(ctx).WithField("dataset", s.dataset).WithField("reason", s.reason).Warn("skipping dataset")
	}
	for _, dataset := range p.ignored {
		log.G(ctx).WithField("dataset", dataset).WithField("property", record.DiffIDProperty).
			WithField("reason", "the diff ID and the parent do not give the template's chain ID").Warn("ignoring property of template")
	}
	for _, r := range p.orphans {
		log.G(ctx).WithField("snapshot", r.Info.Name).WithField("parent", r.Lost).
			WithField("effect", "the snapshot is shown without a parent, so that containerd can remove it").
			Warn("parent of snapshot is missing")
	}
}

func resetMountpoint(ctx context.Context, pool Pool, d zfs.Dataset) {
	entry := log.G(ctx).WithField("dataset", d.Name).WithField("mountpoint", d.Mountpoint)
	if err := pool.SetNative(ctx, d.Name, map[string]string{"mountpoint": "legacy"}); err != nil {
		entry.WithError(err).WithField("fix", fmt.Sprintf("zfs set mountpoint=legacy %s", d.Name)).
			Warn("failed to reset mountpoint of dataset")
		return
	}
	entry.Warn("reset mountpoint of dataset")
}

// promote undoes the promote of an interrupted commit. If ZFS refuses it, the active
// snapshot remains usable as a clone of the template, which is then never destroyed.
func (p *Plan) promote(ctx context.Context, pool Pool, active *index.Entry) error {
	t := active.Template
	if err := pool.Apply(ctx, zfs.Promote(active.Dataset, t.Dataset())); err != nil {
		if errors.Is(err, zfs.ErrSuspended) || ctx.Err() != nil {
			return errkind.Wrap(fmt.Sprintf("roll back the commit of %q", active.Info.Name), err)
		}
		t.Held = true
		log.G(ctx).WithError(err).WithField("snapshot", active.Info.Name).WithField("dataset", t.Dataset()).
			WithField("effect", "the active snapshot remains usable; the next start tries again").Warn("failed to roll back interrupted commit")
		return nil
	}
	p.Index.UndoPromote(active)
	p.partials = append(p.partials, t.Dataset())
	p.residue = append(p.residue, active.Dataset+"@"+layout.Extracted)
	return nil
}

// rollBack rolls back commits that were interrupted before promote: it destroys the
// partials and the snapshots of the runtimes. What it cannot destroy becomes garbage or
// residue.
func (p *Plan) rollBack(ctx context.Context, pool Pool) error {
	left, err := pool.Destroy(ctx, layout.Extracted, p.partials)
	if err != nil {
		return errkind.Wrap("roll back an interrupted commit", err)
	}
	for dataset, err := range left {
		p.Index.AddGarbage(dataset, nil, time.Now())
		log.G(ctx).WithError(err).WithField("dataset", dataset).Warn("failed to destroy residue of interrupted commit")
	}
	for _, snapshot := range p.residue {
		if err := pool.DestroySnapshot(ctx, snapshot); err != nil {
			runtime, _, _ := strings.Cut(snapshot, "@")
			p.Index.Suspend(index.Unresolved{Runtime: runtime, Undone: true})
			log.G(ctx).WithError(err).WithField("snapshot", snapshot).Warn("failed to destroy residue of interrupted commit")
		}
	}
	return nil
}
