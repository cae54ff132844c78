package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"

	"github.com/zfstpl/zfstpl/snapshotter/errkind"
	"github.com/zfstpl/zfstpl/snapshotter/internal/index"
	"github.com/zfstpl/zfstpl/snapshotter/internal/journal"
	"github.com/zfstpl/zfstpl/snapshotter/internal/record"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// Commit makes a template of an active snapshot: it snapshots the runtime, clones the
// snapshot under storage, promotes the clone, writes the record on it and removes that of
// the runtime. The promote moves the data to the template, and the runtime becomes its
// clone and garbage. The runtime may stay mounted and in use.
//
// The template has the name of a layer if the chain ID in name is the one for which key
// was prepared. Otherwise the commit is opaque. If the layer's template is in the pool,
// Commit adds a record to it instead.
func (s *Snapshotter) Commit(ctx context.Context, name, key string, opts ...snapshots.Opt) error {
	return detachErr(ctx, s.gate, func(ctx context.Context) error {
		defer s.reaper.BeginWrite()()
		return s.commit(ctx, name, key, opts)
	})
}

func (s *Snapshotter) commit(ctx context.Context, name, key string, opts []snapshots.Opt) error {
	if err := record.CheckName("name", name); err != nil {
		return err
	}
	given, err := applyOpts(opts)
	if err != nil {
		return err
	}
	unlock, err := s.locks.keys.LockAll(ctx, name, key)
	if err != nil {
		return err
	}
	defer unlock()

	active, taken, err := s.index.Committable(name, key, given.Parent)
	if err != nil {
		return err
	}
	if err := s.resolveWhole(ctx, active); err != nil {
		return fmt.Errorf("commit of %q as %q: %w", key, name, err)
	}
	now := time.Now().UTC()
	r := &index.Entry{Record: record.Record{ID: layout.NewID(), From: active.ID.String(), Remapped: active.Remapped || remaps(name, key), Lost: active.Lost, Info: snapshots.Info{
		Kind: snapshots.KindCommitted, Name: name, Parent: active.Info.Parent,
		Labels: given.Labels, Created: now, Updated: now,
	}}}
	into, unlockTemplate, err := s.destination(ctx, r, active)
	if err != nil {
		return err
	}
	defer unlockTemplate()
	// containerd numbers its names. If its database is new, a name can have a record that
	// the old database made. The new record replaces it if both are of one template.
	if taken != nil && (r.Template == nil || taken.Template != r.Template) {
		return fmt.Errorf("snapshot %q: %w", name, errdefs.ErrAlreadyExists)
	}
	return s.commitInto(ctx, into, r, active)
}

// destination returns the template that a commit creates. If it exists already, destination
// sets r.Template, and the commit adds a record to it. The dataset of a layer is locked
// until the caller calls unlock.
func (s *Snapshotter) destination(ctx context.Context, r, active *index.Entry) (into layout.Template, unlock func(), err error) {
	if active.StandInFor != "" {
		return s.joinLayer(ctx, r, active)
	}
	opaque := s.config.Base.Opaque(r.ID)
	if !s.makesLayer(ctx, r, active) {
		return opaque, func() {}, nil
	}
	into, unlock, err = s.lockLayer(ctx, r.Info.Name, active.Target)
	if err != nil {
		return into, nil, err
	}
	t, free := s.index.Destination(into, active.Template)
	if !free {
		unlock()
		return opaque, func() {}, nil
	}
	r.Template = t
	return into, unlock, nil
}

// makesLayer reports whether a commit is one of the layer for which the active snapshot
// was prepared: its name has the same chain ID.
func (s *Snapshotter) makesLayer(ctx context.Context, r, active *index.Entry) bool {
	if active.Target == "" || layout.ClientName(r.Info.Name) != active.Target {
		return false
	}
	return !s.ownTemplates(ctx) || layout.Namespace(r.Info.Name) == layout.Namespace(active.Info.Name)
}

func (s *Snapshotter) commitInto(ctx context.Context, into layout.Template, r, active *index.Entry) error {
	joins := r.Template != nil
	if !joins {
		r.Template = &index.Template{Template: into, Parent: active.Template}
		r.Template.From = s.index.ProvenanceOf(active.Dataset, r.Template)
	}
	r.Dataset = into.Dataset()
	r.Seq = s.index.Next()

	ops, err := commitOps(r, active, joins)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	ready := ""
	doing := fmt.Sprintf("commit of %q as %q", active.Info.Name, r.Info.Name)
	if err := s.barrier(ctx); err != nil {
		return errkind.Wrap(doing, err)
	}
	if joins {
		if err = s.join(ctx, r, ops); s.index.DropLost(r.Template, err) {
			err = fmt.Errorf("cached template %s is missing; the next commit creates it again: %w", r.Dataset, err)
		}
	} else {
		ready, err = s.promoteWithNext(ctx, r, active, ops)
	}
	if errkind.IsAmbiguous(err) {
		committed, settleErr := s.settle(ctx, index.Unresolved{Runtime: active.Dataset, Active: active, Commit: r, Joined: joins, Ready: ready})
		if committed {
			if ready != "" { // if it does not exist, its destruction has no effect
				s.index.AddGarbage(ready, r.Template, time.Now())
			}
			s.index.Commit(r, active, joins, time.Now(), s.journal.Append)
			s.journal.Append(active.Clear()) // the command may not have got to it
			return nil
		}
		if joins { // the log may have the change
			settleErr = errors.Join(settleErr, s.rollBackUpdate(active, r))
		}
		err = errors.Join(err, settleErr)
	}
	if err != nil {
		return errkind.Wrap(doing, err)
	}
	s.index.Commit(r, active, joins, time.Now(), s.journal.Append)
	if ready != "" {
		s.index.AddReady(index.Ready{Dataset: ready, Origin: r.Template}, time.Now())
		s.ready.keep(r.Template, time.Now())
	}
	return nil
}

// promoteWithNext runs the transaction of a commit that creates a template. If the template is a
// layer, the transaction also makes a ready runtime of it, whose name is returned. A failure of
// that does not fail the commit.
func (s *Snapshotter) promoteWithNext(ctx context.Context, r, active *index.Entry, ops []zfs.Op) (ready string, err error) {
	ready = s.nextReady(ctx, r)
	err = s.reaper.WithReclaim(ctx, func() error {
		all := ops
		if ready != "" {
			all = append(slices.Clip(ops), zfs.Clone(r.Template.Snapshot(), ready))
		}
		err := s.promoteWithRetry(ctx, r, active, all)
		var refused *zfs.Error
		if ready != "" && errors.As(err, &refused) && refused.Dataset == ready && !errkind.IsAmbiguous(err) {
			ready = ""
			err = s.promoteWithRetry(ctx, r, active, ops)
		}
		return err
	})
	return ready, err
}

// join adds the record of a commit to an existing template.
func (s *Snapshotter) join(ctx context.Context, r *index.Entry, ops []zfs.Op) error {
	if err := s.checkExists(ctx, r.Dataset); err != nil {
		return err
	}
	return s.write(ctx, ops, s.apply)
}

const (
	// promoteTimeout is how long promoteWithRetry retries, once per promoteInterval.
	promoteTimeout  = 10 * time.Second
	promoteInterval = 50 * time.Millisecond
)

// promoteWithRetry runs promote. If ZFS refuses it for lack of space although space is
// available, promoteWithRetry retries for promoteTimeout: nothing needs to be evicted. A
// promote writes no data, but ZFS counts concurrent writes at 24 times their size
// (spa_asize_inflation), the most that they could occupy. So a single block in the open
// transaction group can exceed the space that is left, until it is on the disk.
func (s *Snapshotter) promoteWithRetry(ctx context.Context, r, active *index.Entry, ops []zfs.Op) error {
	for began := time.Now(); ; {
		err := s.promote(ctx, r, active, ops)
		if !s.isTransientNoSpace(ctx, err) || time.Since(began) > promoteTimeout || s.gate.checkOpen() != nil {
			return err
		}
		log.G(ctx).WithError(err).WithField("dataset", r.Dataset).Debug("promote refused beside concurrent writes; retrying")
		select {
		case <-time.After(promoteInterval):
		case <-ctx.Done():
			return err
		}
	}
}

// isTransientNoSpace reports whether ZFS refused a promote because of concurrent writes.
func (s *Snapshotter) isTransientNoSpace(ctx context.Context, err error) bool {
	var refused *zfs.Error
	if !errkind.IsOutOfSpace(err) || errkind.IsAmbiguous(err) || !errors.As(err, &refused) || refused.Op != "promote" {
		return false
	}
	// Available is that of the pool and of all quotas, without concurrent writes.
	space, spaceErr := s.pool.Space(ctx, s.config.Base.Storage())
	return spaceErr == nil && space.Available > 0
}

// promote executes a commit that creates a template. It flushes the runtime first, because
// programs may have written to it through mmap. The differ does not: a runtime that has nothing
// but a layer, which the differ unpacked, is not flushed. The first flush of a clone waits for a
// txg.
func (s *Snapshotter) promote(ctx context.Context, r, active *index.Entry, ops []zfs.Op) error {
	if !r.Template.From.IsKnown() {
		if err := s.pool.Flush(ctx, active.Dataset); err != nil {
			return err
		}
	}
	err := s.journal.Include([]string{active.Dataset, r.Dataset}, func(content journal.Included) error {
		return s.pool.Apply(ctx, commitWith(ops, content, r.Dataset, active.Dataset)...)
	})
	if errors.Is(err, zfs.ErrExists) {
		s.index.ReserveName(r.Dataset) // of another dataset: the next commit is opaque
	}
	return err
}

// commitWith adds to the ops of a commit what the journal has of its datasets. The marks stand
// where each prefix of the list can be recovered: that of the template before its first property,
// that of the runtime after the committed record and before the removal of the active one.
func commitWith(ops []zfs.Op, content journal.Included, template, runtime string) []zfs.Op {
	changes := func(dataset string) func(zfs.Op) bool {
		return func(op zfs.Op) bool { _, _, ok := op.Property(); return ok && op.Dataset() == dataset }
	}
	first, removal := slices.IndexFunc(ops, changes(template)), slices.IndexFunc(ops, changes(runtime))
	return lastChanges(slices.Concat(
		ops[:first], content.Position, content.Entries, content.Marks[template],
		ops[first:removal], content.Marks[runtime], ops[removal:]))
}

// lastChanges returns ops without changes of properties that a later op of the list changes too.
func lastChanges(ops []zfs.Op) []zfs.Op {
	type property struct{ dataset, name string }
	later := make(map[property]bool)
	kept := make([]zfs.Op, 0, len(ops))
	for _, op := range slices.Backward(ops) {
		if name, _, ok := op.Property(); ok {
			p := property{op.Dataset(), name}
			if later[p] {
				continue
			}
			later[p] = true
		}
		kept = append(kept, op)
	}
	slices.Reverse(kept)
	return kept
}

// commitOps returns the ops of a commit. Their order lets recovery recognize every prefix
// of them: only a dataset under storage with @extracted is a template, and promote and both
// changes of records are in one transaction on every release.
func commitOps(r, active *index.Entry, joins bool) ([]zfs.Op, error) {
	set, err := r.Set()
	if err != nil {
		return nil, err
	}
	var ops []zfs.Op
	if !joins {
		content := active.Dataset + "@" + layout.Extracted
		ops = append(ops,
			zfs.Snapshot(content),
			zfs.Clone(content, r.Dataset),
			zfs.Promote(r.Dataset, active.Dataset))
		ops = append(ops, r.Template.From.Set(r.Dataset)...)
	}
	ops = append(ops, set...)
	return append(ops, active.Clear()...), nil
}
