package zfsfake

import (
	"maps"
	"strings"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// The operations of ZFS on a State.

func (s *State) applyAll(ops []zfs.Op) error {
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
			fs, ok := s.FS[name]
			if !ok {
				return Error("set", name, zfs.ErrNotFound)
			}
			if verbIs(op, "set") {
				fs.Props[opWord(op, "prop")] = opWord(op, "value")
			} else {
				delete(fs.Props, opWord(op, "prop"))
			}
		case "raise":
			fs, ok := s.FS[name]
			if !ok {
				return Error("raise", name, zfs.ErrNotFound)
			}
			fs.Props[opWord(op, "prop")] = max(fs.Props[opWord(op, "prop")], opWord(op, "value"))
		default:
			err = Error("apply", name, zfs.ErrInvalid)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *State) isMounted(name string) bool { return s.Mounted[name] || s.Attached[name] > 0 }

func (s *State) quota(name, value string) error {
	fs, ok := s.FS[name]
	if !ok {
		return Error("quota", name, zfs.ErrNotFound)
	}
	fs.Native["refquota"] = value
	return nil
}

func (s *State) snapshot(name string) error {
	parent, short, _ := strings.Cut(name, "@")
	fs, ok := s.FS[parent]
	switch _, taken := fs.Snaps[short]; {
	case !ok:
		return Error("snapshot", name, zfs.ErrNotFound)
	case taken:
		return Error("snapshot", name, zfs.ErrExists)
	case s.isFull():
		return Error("snapshot", name, zfs.ErrNoSpace)
	}
	fs.Snaps[short] = Snap{TXG: s.TXG, Content: fs.Content}
	return nil
}

func (s *State) cloneOf(origin, name string) error {
	parent, short, _ := strings.Cut(origin, "@")
	snap, ok := s.FS[parent].Snaps[short]
	if _, above := s.FS[parentOf(name)]; !ok || !above {
		return Error("clone", origin, zfs.ErrNotFound)
	}
	if _, taken := s.FS[name]; taken {
		return Error("clone", name, zfs.ErrExists)
	}
	if s.isFull() {
		return Error("clone", name, zfs.ErrNoSpace)
	}
	s.Create(name, nil)
	fs := s.FS[name]
	fs.Origin, fs.Content = origin, snap.Content
	s.FS[name] = fs
	return nil
}

// promote moves the origin of a clone, and all earlier snapshots, to the clone. The former
// owner becomes a clone of the moved snapshot.
func (s *State) promote(name, former string) error {
	fs, ok := s.FS[name]
	if !ok {
		return Error("promote", name, zfs.ErrNotFound)
	}
	owner, short, isClone := strings.Cut(fs.Origin, "@")
	if !isClone || owner != former {
		return Error("promote", name, zfs.ErrInvalid)
	}
	from := s.FS[owner]
	limit := from.Snaps[short].TXG
	for snap, is := range from.Snaps {
		if is.TXG > limit {
			continue
		}
		if _, conflict := fs.Snaps[snap]; conflict {
			return Error("promote", name, zfs.ErrExists)
		}
		if s.isMounted(owner + "@" + snap) {
			return Error("promote", name, zfs.ErrBusy)
		}
	}
	fs.Origin, from.Origin = from.Origin, name+"@"+short
	s.FS[name], s.FS[owner] = fs, from
	for snap, is := range from.Snaps {
		if is.TXG > limit {
			continue
		}
		fs.Snaps[snap] = is
		delete(from.Snaps, snap)
		for clone, c := range s.FS {
			if c.Origin == owner+"@"+snap && clone != name {
				c.Origin = name + "@" + snap
				s.FS[clone] = c
			}
		}
	}
	return nil
}

func (s *State) clonesOf(snapshot string) (n int) {
	for _, fs := range s.FS {
		if fs.Origin == snapshot {
			n++
		}
	}
	return n
}

// destroyTemplate destroys a file system like destroy.lua.
func (s *State) destroyTemplate(p *Pool, own, name string) error {
	fs, ok := s.FS[name]
	if !ok {
		return nil
	}
	for snap := range fs.Snaps {
		if snap != own && !strings.HasPrefix(snap, zfs.TemporaryPrefix) {
			return Error("destroy", name, zfs.ErrForeign)
		}
	}
	if s.isMounted(name) {
		snap, has := fs.Snaps[own]
		if has && s.clonesOf(name+"@"+own) == 0 && (s.isFull() || snap.Content != fs.Content) {
			delete(fs.Snaps, own)
			return &zfs.Error{Op: "destroy", Dataset: name, Kind: zfs.ErrBusy, SnapshotLost: true}
		}
		return Error("destroy", name, zfs.ErrBusy)
	}
	for other := range s.FS {
		if strings.HasPrefix(other, name+"/") {
			return Error("destroy", name, zfs.ErrExists)
		}
	}
	for snap := range maps.Clone(fs.Snaps) {
		if snap == own {
			continue
		}
		if err := s.destroyOne(name + "@" + snap); err != nil {
			return err
		}
	}
	if _, has := fs.Snaps[own]; has {
		if s.clonesOf(name+"@"+own) > 0 {
			return Error("destroy", name, zfs.ErrHasClones)
		}
		if err := s.destroyOne(name + "@" + own); err != nil {
			return err
		}
	}
	if keeps := p.keeps.Load(); keeps != nil && (*keeps)(name) {
		p.tb.Errorf("%s is destroyed, but must be kept", name)
	}
	return s.destroyOne(name)
}

// destroyOne destroys a file system or snapshot like 'zfs destroy'.
func (s *State) destroyOne(name string) error {
	if s.isMounted(name) {
		return Error("destroy", name, zfs.ErrBusy)
	}
	parent, short, isSnapshot := strings.Cut(name, "@")
	fs, ok := s.FS[parent]
	switch {
	case !ok:
		return nil
	case !isSnapshot && len(fs.Snaps) > 0:
		return Error("destroy", name, zfs.ErrBusy)
	case !isSnapshot:
		delete(s.FS, name)
	case s.clonesOf(name) > 0:
		return Error("destroy", name, zfs.ErrHasClones)
	default:
		delete(fs.Snaps, short)
	}
	return nil
}

func (s *State) ContentOf(name string) (string, bool) {
	parent, short, isSnapshot := strings.Cut(name, "@")
	fs, ok := s.FS[parent]
	if !isSnapshot {
		return fs.Content + fs.Dirty, ok
	}
	snap, ok := fs.Snaps[short]
	return snap.Content, ok
}

// used returns the bytes of a file system that its origin does not have.
func (s *State) used(name string) uint64 {
	below, _ := s.ContentOf(s.FS[name].Origin)
	content, _ := s.ContentOf(name)
	return uint64(len(content) - min(len(content), len(below)))
}
