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

	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// Commit makes the content of an active snapshot a template, in one
// transaction: snapshot the runtime, clone the snapshot under storage, promote
// the clone, write the record there, take it from the runtime. Promoting gives
// the new template the data; the runtime becomes its clone and waits to be
// destroyed. It may be mounted and in use all the while: nothing is renamed
// and nothing is taken from under anybody.
//
// The template is named by its chain ID only when the name says the same as
// what the key was prepared for. Any other commit is opaque.
//
// A layer that is in the pool already gets one more record, and what was
// extracted a second time becomes trash.
func (s *Snapshotter) Commit(ctx context.Context, name, key string, opts ...snapshots.Opt) error {
	return detachErr(ctx, s, func(ctx context.Context) error {
		defer s.activity.begin()()
		return s.commit(ctx, name, key, opts)
	})
}

func (s *Snapshotter) commit(ctx context.Context, name, key string, opts []snapshots.Opt) error {
	if err := checkName("name", name); err != nil {
		return err
	}
	given, err := applyOpts(opts)
	if err != nil {
		return err
	}
	names := []string{name, key}
	slices.Sort(names) // one order everywhere: two commits cannot wait for each other
	unlock, err := s.keys.lockAll(ctx, slices.Compact(names)...)
	if err != nil {
		return err
	}
	defer unlock()

	active, taken, err := s.committable(name, key, given.Parent)
	if err != nil {
		return err
	}
	now := time.Now().UTC()
	r := &record{id: layout.NewID(), from: active.id.String(), remapped: active.remapped || remaps(name, key), lost: active.lost, info: snapshots.Info{
		Kind: snapshots.KindCommitted, Name: name, Parent: active.info.Parent,
		Labels: given.Labels, Created: now, Updated: now,
	}}
	into, unlockTemplate, err := s.destination(ctx, r, active)
	if err != nil {
		return err
	}
	defer unlockTemplate()
	// containerd counts its names. It gives one twice when its database is new, and the
	// record is then of the old one: of a layer it says what the new one says.
	if taken != nil && (r.template == nil || taken.template != r.template) {
		return fmt.Errorf("snapshot %q: %w", name, errdefs.ErrAlreadyExists)
	}
	return s.commitInto(ctx, into, r, active)
}

// committable returns the active record of key, if it can be committed as name, and the
// committed record that has the name, if there is one.
func (s *Snapshotter) committable(name, key, parent string) (active, taken *record, err error) {
	x := s.index
	x.mu.Lock()
	defer x.mu.Unlock()
	active, err = x.getLocked(key)
	if err != nil {
		return nil, nil, err
	}
	taken = x.records[name]
	switch {
	case active.info.Kind != snapshots.KindActive:
		return nil, nil, fmt.Errorf("snapshot %q is not active: %w", key, errdefs.ErrFailedPrecondition)
	case taken != nil && (taken.info.Kind != snapshots.KindCommitted || x.hidden[name]):
		return nil, nil, fmt.Errorf("snapshot %q: %w", name, errdefs.ErrAlreadyExists)
	case parent != "" && parent != active.info.Parent:
		return nil, nil, fmt.Errorf("commit of %q: it was prepared on %q and cannot be moved to parent %q: %w",
			key, active.info.Parent, parent, errdefs.ErrInvalidArgument)
	}
	return active, taken, nil
}

// destination decides which template a commit makes or, when r.template is set,
// joins. The lock of a layer's dataset is held until unlock.
func (s *Snapshotter) destination(ctx context.Context, r, active *record) (into layout.Template, unlock func(), err error) {
	if active.standInFor != "" {
		return s.joinLayer(ctx, r, active)
	}
	opaque := s.config.Base.Opaque(r.id)
	if !s.makesLayer(ctx, r, active) {
		return opaque, func() {}, nil
	}
	layer, err := s.layer(ctx, r.info.Name, active.target)
	if err != nil {
		return layout.Template{}, nil, err
	}
	unlock, err = s.data.lock(ctx, layer.Dataset())
	if err != nil {
		return layout.Template{}, nil, err
	}
	s.index.mu.RLock()
	defer s.index.mu.RUnlock()
	t, whole := s.index.templates[layer.Dataset()]
	_, dying := s.index.garbage[layer.Dataset()]
	switch {
	case dying, s.index.reservedNames[layer.Dataset()], whole && t.parent != active.template:
		// The name is taken by something else: a template that could not be
		// destroyed, or the same chain ID claimed on another parent, which one
		// of the two claims wrongly. Neither may stand for the other.
		unlock()
		return opaque, func() {}, nil
	case whole:
		r.template = t
	}
	return layer, unlock, nil
}

// makesLayer tells whether a commit is of the image layer that the active
// snapshot was prepared for: its name has to say the same.
func (s *Snapshotter) makesLayer(ctx context.Context, r, active *record) bool {
	if active.target == "" || layout.ClientName(r.info.Name) != active.target {
		return false
	}
	return !s.ownTemplates(ctx) || layout.Namespace(r.info.Name) == layout.Namespace(active.info.Name)
}

func (s *Snapshotter) commitInto(ctx context.Context, into layout.Template, r, active *record) error {
	joins := r.template != nil
	if !joins {
		r.template = &template{Template: into, parent: active.template}
		r.template.from = s.index.provenanceOf(active.dataset, r.template)
	}
	r.dataset = into.Dataset()
	r.seq = s.index.next()

	ops, err := commitOps(r, active, joins)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	doing := fmt.Sprintf("commit of %q as %q", active.info.Name, r.info.Name)
	if err := s.barrier(ctx); err != nil {
		return poolError(doing, err)
	}
	if joins {
		if err = s.apply(ctx, ops...); s.index.dropLost(r.template, err) {
			err = fmt.Errorf("somebody destroyed the cached template %s; the next commit makes it anew: %w", r.dataset, err)
		}
	} else {
		err = s.withReclaim(ctx, func() error { return s.promoteWithRetry(ctx, r, active, ops) })
	}
	if ambiguous(err) {
		err = errors.Join(err, s.rollBackCommit(ctx, r, active))
	}
	if err != nil {
		return poolError(doing, err)
	}
	s.committed(r, active, joins)
	return nil
}

const (
	// writersTime is how long a commit waits for others' writes to get to the disk,
	// writersPause how often it looks.
	promoteTimeout  = 10 * time.Second
	promoteInterval = 50 * time.Millisecond
)

// promoteBesideWriters is promote, tried again for some time where it is refused for
// want of space and there is some. To promote writes nothing, but ZFS counts what
// others are writing at that moment as 24 times its size (spa_asize_inflation), the
// most that it could come to on any disk: one block of theirs can be more than what is
// left, until it is on the disk. What is unpacked already, and what is warm, need not go for that.
func (s *Snapshotter) promoteWithRetry(ctx context.Context, r, active *record, ops []zfs.Op) error {
	for began := time.Now(); ; {
		err := s.promote(ctx, r, active, ops)
		if !s.isTransientNoSpace(ctx, err) || time.Since(began) > promoteTimeout || s.checkOpen() != nil {
			return err
		}
		log.G(ctx).WithError(err).WithField("dataset", r.dataset).Debug("a commit waits until what others are writing is on the disk")
		select {
		case <-time.After(promoteInterval):
		case <-ctx.Done():
			return err
		}
	}
}

// isForWriters tells whether ZFS refused to promote because of what is being written.
func (s *Snapshotter) isTransientNoSpace(ctx context.Context, err error) bool {
	var refused *zfs.Error
	if !outOfSpace(err) || ambiguous(err) || !errors.As(err, &refused) || refused.Op != "promote" {
		return false
	}
	// What is available is that on the disk, of the pool and of every quota.
	space, spaceErr := s.pool.Space(ctx, s.config.Base.Storage())
	return spaceErr == nil && space.Available > 0
}

// promote carries out a commit that makes a template. It flushes the runtime
// before: programs may have written to it through mmap.
func (s *Snapshotter) promote(ctx context.Context, r, active *record, ops []zfs.Op) error {
	if err := s.cleanResidue(ctx, active); err != nil {
		return err
	}
	if err := s.pool.Flush(ctx, active.dataset); err != nil {
		return err
	}
	err := s.pool.Apply(ctx, ops...)
	if err != nil {
		s.index.markUnknown(active.dataset, r.dataset, err)
	}
	return err
}

// cleanResidue takes away what a commit left which neither went through nor could be
// taken back: a snapshot, and before it the clone of that which was to be the template.
// One that was promoted has a clone itself, and stays.
func (s *Snapshotter) cleanResidue(ctx context.Context, active *record) error {
	partial, residueOf := s.index.residueOf(active.dataset)
	if !residueOf {
		return nil
	}
	if partial != "" {
		left, err := s.pool.Destroy(ctx, layout.Extracted, []string{partial})
		if err != nil {
			return err
		}
		if left[partial] == nil {
			s.index.releasePartial(active.dataset, partial)
		}
	}
	if err := s.pool.DestroySnapshot(ctx, active.dataset+"@"+layout.Extracted); err != nil {
		return err
	}
	s.index.clearUnknown(active.dataset)
	return nil
}

// markUnknown notes what a commit that failed may have left: a snapshot of the
// runtime and, where the pool did not say why it failed or what is in the way,
// a dataset of the new template's name. A command that is killed says nothing,
// and may have done any part of its work.
func (x *index) markUnknown(runtime, template string, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	exists := errors.Is(err, zfs.ErrExists)
	if ambiguous(err) || exists {
		x.reservedNames[template] = true
	}
	if exists || !ambiguous(err) {
		template = "" // it is not of this commit, or was taken back
	}
	x.residue[runtime] = template
}

func (x *index) clearUnknown(runtime string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.residue, runtime)
}

// partialIsGone gives the name of a half free: what has it from now on is another's.
func (x *index) releasePartial(runtime, partial string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.reservedNames, partial)
	x.residue[runtime] = ""
}

func (x *index) residueOf(runtime string) (partial string, residueOf bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	partial, residueOf = x.residue[runtime]
	return partial, residueOf
}

// dropResidue has what a failed commit of a runtime may have left destroyed with it.
// It wants the mutex held.
func (x *index) dropResidue(runtime string) {
	if partial := x.residue[runtime]; partial != "" && x.reservedNames[partial] && x.templates[partial] == nil {
		x.discard(partial, nil)
		x.garbage[partial].runtime = runtime
	}
	delete(x.residue, runtime)
}

// commitOps orders the steps so that a crash between any two of them can be
// told apart where they are not one transaction: only a dataset that has
// @extracted under storage is a template, and promote, the record and the
// trash mark come together on every release.
func commitOps(r, active *record, joins bool) ([]zfs.Op, error) {
	set, err := r.set()
	if err != nil {
		return nil, err
	}
	var ops []zfs.Op
	if !joins {
		content := active.dataset + "@" + layout.Extracted
		ops = append(ops,
			zfs.Snapshot(content),
			zfs.Clone(content, r.dataset),
			zfs.Promote(r.dataset, active.dataset))
		ops = append(ops, r.template.from.set(r.dataset)...)
	}
	ops = append(ops, set...)
	ops = append(ops, active.clear()...)
	return append(ops, zfs.Set(active.dataset, propGarbage, stamp(r.info.Created))), nil
}

// committed brings the index up to date after a commit.
func (s *Snapshotter) committed(r, active *record, joined bool) {
	x := s.index
	x.mu.Lock()
	defer x.mu.Unlock()
	origin := active.template
	if !joined {
		x.templates[r.dataset] = r.template
		origin = r.template
	}
	x.addChild(r.info.Parent)
	x.drop(active)
	if taken := x.records[r.info.Name]; taken != nil {
		x.drop(taken) // until the pool knows, the greater sequence number counts
		s.journal.add(taken.clear())
	}
	x.insert(r)
	x.discard(active.dataset, origin)
	delete(x.residue, active.dataset)
}

// stamp is the form of times in properties.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
