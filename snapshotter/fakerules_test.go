package snapshotter

import (
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// The operations of ZFS on a fakeState.

func (s *fakeState) applyAll(ops []zfs.Op) error {
	for _, op := range ops {
		name, origin := opWord(op, "name"), opWord(op, "origin")
		var err error
		switch opWord(op, "verb") {
		case "snapshot":
			err = s.snapshot(name)
		case "clone":
			err = s.cloneOf(origin, name)
		case "promote":
			err = s.promote(name, origin)
		case "quota":
			err = s.quota(name, opWord(op, "value"))
		case "set", "inherit":
			fs, ok := s.fs[name]
			if !ok {
				return fakeError("set", name, zfs.ErrNotFound)
			}
			if verbIs(op, "set") {
				fs.props[opWord(op, "prop")] = opWord(op, "value")
			} else {
				delete(fs.props, opWord(op, "prop"))
			}
		default:
			err = fakeError("apply", name, zfs.ErrInvalid)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *fakeState) isMounted(name string) bool { return s.mounted[name] || s.attached[name] > 0 }

func (s *fakeState) quota(name, value string) error {
	fs, ok := s.fs[name]
	if !ok {
		return fakeError("quota", name, zfs.ErrNotFound)
	}
	fs.native["refquota"] = value
	return nil
}

func (s *fakeState) snapshot(name string) error {
	parent, short, _ := strings.Cut(name, "@")
	fs, ok := s.fs[parent]
	switch _, taken := fs.snaps[short]; {
	case !ok:
		return fakeError("snapshot", name, zfs.ErrNotFound)
	case taken:
		return fakeError("snapshot", name, zfs.ErrExists)
	case s.isFull():
		return fakeError("snapshot", name, zfs.ErrNoSpace)
	}
	fs.snaps[short] = fakeSnap{txg: s.txg, content: fs.content}
	return nil
}

func (s *fakeState) cloneOf(origin, name string) error {
	parent, short, _ := strings.Cut(origin, "@")
	snap, ok := s.fs[parent].snaps[short]
	if _, above := s.fs[parentOf(name)]; !ok || !above {
		return fakeError("clone", origin, zfs.ErrNotFound)
	}
	if _, taken := s.fs[name]; taken {
		return fakeError("clone", name, zfs.ErrExists)
	}
	if s.isFull() {
		return fakeError("clone", name, zfs.ErrNoSpace)
	}
	s.create(name, nil)
	fs := s.fs[name]
	fs.origin, fs.content = origin, snap.content
	s.fs[name] = fs
	return nil
}

// promote moves the origin of a clone, and all earlier snapshots, to the clone. The former
// owner becomes a clone of the moved snapshot.
func (s *fakeState) promote(name, former string) error {
	fs, ok := s.fs[name]
	if !ok {
		return fakeError("promote", name, zfs.ErrNotFound)
	}
	owner, short, isClone := strings.Cut(fs.origin, "@")
	if !isClone || owner != former {
		return fakeError("promote", name, zfs.ErrInvalid)
	}
	from := s.fs[owner]
	limit := from.snaps[short].txg
	for snap, is := range from.snaps {
		if is.txg > limit {
			continue
		}
		if _, conflict := fs.snaps[snap]; conflict {
			return fakeError("promote", name, zfs.ErrExists)
		}
		if s.isMounted(owner + "@" + snap) {
			return fakeError("promote", name, zfs.ErrBusy)
		}
	}
	fs.origin, from.origin = from.origin, name+"@"+short
	s.fs[name], s.fs[owner] = fs, from
	for snap, is := range from.snaps {
		if is.txg > limit {
			continue
		}
		fs.snaps[snap] = is
		delete(from.snaps, snap)
		for clone, c := range s.fs {
			if c.origin == owner+"@"+snap && clone != name {
				c.origin = name + "@" + snap
				s.fs[clone] = c
			}
		}
	}
	return nil
}

func (s *fakeState) clonesOf(snapshot string) (n int) {
	for _, fs := range s.fs {
		if fs.origin == snapshot {
			n++
		}
	}
	return n
}

// destroyTemplate destroys a file system like destroy.lua.
func (s *fakeState) destroyTemplate(p *fakePool, own, name string) error {
	fs, ok := s.fs[name]
	if !ok {
		return nil
	}
	for snap := range fs.snaps {
		if snap != own && !strings.HasPrefix(snap, zfs.TemporaryPrefix) {
			return fakeError("destroy", name, zfs.ErrForeign)
		}
	}
	if s.isMounted(name) {
		snap, has := fs.snaps[own]
		if has && s.clonesOf(name+"@"+own) == 0 && (s.isFull() || snap.content != fs.content) {
			delete(fs.snaps, own)
			return &zfs.Error{Op: "destroy", Dataset: name, Kind: zfs.ErrBusy, SnapshotLost: true}
		}
		return fakeError("destroy", name, zfs.ErrBusy)
	}
	for other := range s.fs {
		if strings.HasPrefix(other, name+"/") {
			return fakeError("destroy", name, zfs.ErrExists)
		}
	}
	for snap := range maps.Clone(fs.snaps) {
		if snap == own {
			continue
		}
		if err := s.destroyOne(name + "@" + snap); err != nil {
			return err
		}
	}
	if _, has := fs.snaps[own]; has {
		if s.clonesOf(name+"@"+own) > 0 {
			return fakeError("destroy", name, zfs.ErrHasClones)
		}
		if err := s.destroyOne(name + "@" + own); err != nil {
			return err
		}
	}
	if sn := p.owner.Load(); sn != nil && shows(sn.index, name) {
		p.tb.Errorf("%s is destroyed although it has a record", name)
	}
	return s.destroyOne(name)
}

// destroyOne destroys a file system or snapshot like 'zfs destroy'.
func (s *fakeState) destroyOne(name string) error {
	if s.isMounted(name) {
		return fakeError("destroy", name, zfs.ErrBusy)
	}
	parent, short, isSnapshot := strings.Cut(name, "@")
	fs, ok := s.fs[parent]
	switch {
	case !ok:
		return nil
	case !isSnapshot && len(fs.snaps) > 0:
		return fakeError("destroy", name, zfs.ErrBusy)
	case !isSnapshot:
		delete(s.fs, name)
	case s.clonesOf(name) > 0:
		return fakeError("destroy", name, zfs.ErrHasClones)
	default:
		delete(fs.snaps, short)
	}
	return nil
}

func (s *fakeState) contentOf(name string) (string, bool) {
	parent, short, isSnapshot := strings.Cut(name, "@")
	fs, ok := s.fs[parent]
	if !isSnapshot {
		return fs.content + fs.dirty, ok
	}
	snap, ok := fs.snaps[short]
	return snap.content, ok
}

// used returns the bytes of a file system that its origin does not have.
func (s *fakeState) used(name string) uint64 {
	below, _ := s.contentOf(s.fs[name].origin)
	content, _ := s.contentOf(name)
	return uint64(len(content) - min(len(content), len(below)))
}

// The tests are only valid if the fake pool follows the rules of ZFS.
func TestFakePoolFollowsTheRulesOfZFS(t *testing.T) {
	t.Parallel()
	for _, steps := range []bool{false, true} {
		p := newFakePool(t)
		p.steps = steps
		ctx := t.Context()
		require.NoError(t, p.Create(ctx, "tank/run", nil))
		p.editFS("tank/run", func(fs *fakeFS) { fs.content = "a" })
		require.ErrorIs(t, p.Create(ctx, "tank/run", nil), zfs.ErrExists)
		require.ErrorIs(t, p.Create(ctx, "tank/no/run", nil), zfs.ErrNotFound)
		commit := []zfs.Op{zfs.Snapshot("tank/run@x"), zfs.Clone("tank/run@x", "tank/tpl"), zfs.Promote("tank/tpl", "tank/run"), zfs.Set("tank/tpl", "a:b", "c")}

		before := p.state.clone()
		bad := append(commit[:len(commit):len(commit)], zfs.Set("tank/none", "a:b", "c"))
		require.ErrorIs(t, p.Apply(ctx, bad...), zfs.ErrNotFound)
		assert.Equal(t, before.fs, p.state.fs, "all ops or none")

		require.NoError(t, p.Apply(ctx, commit...))
		assert.Equal(t, "tank/tpl@x", p.state.fs["tank/run"].origin, "promote reverses the origin")
		assert.Empty(t, p.state.fs["tank/tpl"].origin)
		assert.Empty(t, p.state.fs["tank/run"].snaps)
		require.ErrorIs(t, p.Apply(ctx, commit[1]), zfs.ErrNotFound, "promote has moved the snapshot")
		require.NoError(t, p.Apply(ctx, zfs.Snapshot("tank/run@x")), "the name of the snapshot is free again")

		left, err := p.Destroy(ctx, "x", []string{"tank/tpl", "tank/run", "tank/none"})
		require.NoError(t, err)
		require.Len(t, left, 1)
		require.ErrorIs(t, left["tank/tpl"], zfs.ErrHasClones)

		require.NoError(t, p.Apply(ctx, zfs.Snapshot("tank/tpl@daily")))
		left, _ = p.Destroy(ctx, "x", []string{"tank/tpl"})
		require.ErrorIs(t, left["tank/tpl"], zfs.ErrForeign)
		require.NoError(t, p.DestroySnapshot(ctx, "tank/tpl@daily"))
		p.edit(func(s *fakeState) { s.mounted["tank/tpl@x"] = true })
		left, _ = p.Destroy(ctx, "x", []string{"tank/tpl"})
		require.ErrorIs(t, left["tank/tpl"], zfs.ErrBusy)

		p.crashAfter = 1
		require.NoError(t, p.Apply(ctx, zfs.Set("tank/tpl", "a:b", "d")))
		require.True(t, errors.Is(p.Apply(ctx, zfs.Set("tank/tpl", "a:b", "e")), errCrashed))
		q := p.afterCrash()
		assert.Equal(t, "d", q.state.fs["tank/tpl"].props["a:b"])
	}
}
