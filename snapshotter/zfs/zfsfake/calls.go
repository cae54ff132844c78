package zfsfake

import (
	"context"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

func (p *Pool) Create(_ context.Context, name string, props map[string]string) error {
	return p.call(Create, []string{name}, func() error {
		return p.transact(nil, func(s *State) error {
			if _, ok := s.FS[name]; ok {
				return Error("create", name, zfs.ErrExists)
			}
			if _, ok := s.FS[parentOf(name)]; !ok {
				return Error("create", name, zfs.ErrNotFound)
			}
			s.Create(name, props)
			return nil
		})
	})
}

func (p *Pool) List(_ context.Context, root string) ([]zfs.Dataset, error) {
	var list []zfs.Dataset
	err := p.call(List, []string{root}, func() error {
		return p.read(func(s *State) error {
			if _, ok := s.FS[root]; !ok {
				return Error("list", root, zfs.ErrNotFound)
			}
			for name, fs := range s.FS {
				if name != root && !strings.HasPrefix(name, root+"/") {
					continue
				}
				list = append(list, zfs.Dataset{
					Name: name, Origin: fs.Origin, CreateTXG: fs.TXG, Created: fs.Born, Used: s.used(name),
					Snapshots: slices.Sorted(maps.Keys(fs.Snaps)), Mountpoint: fs.Native["mountpoint"], Props: maps.Clone(fs.Props),
				})
			}
			return nil
		})
	})
	return list, err
}

func (p *Pool) Destroy(_ context.Context, own string, names []string) (map[string]error, error) {
	left := make(map[string]error)
	err := p.call(Destroy, names, func() error {
		if len(names) == 0 {
			return nil
		}
		return p.transact(nil, func(s *State) error {
			for _, name := range names {
				if err := s.destroyTemplate(p, own, name); err != nil {
					left[name] = err
				}
			}
			return nil
		})
	})
	return left, err
}

func (p *Pool) DestroyForeign(_ context.Context, own, name string) error {
	return p.call(DestroyForeign, []string{name}, func() error {
		return p.transact(nil, func(s *State) error {
			for _, snap := range slices.Sorted(maps.Keys(s.FS[name].Snaps)) {
				if snap == own {
					continue
				}
				if err := s.destroyOne(name + "@" + snap); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

func (p *Pool) DestroySnapshot(_ context.Context, name string) error {
	return p.call(DestroySnapshot, []string{name}, func() error {
		return p.transact(nil, func(s *State) error { return s.destroyOne(name) })
	})
}

func (p *Pool) Flush(_ context.Context, name string) error {
	return p.call(Flush, []string{name}, func() error {
		return p.transact(nil, func(s *State) error {
			fs, ok := s.FS[name]
			if !ok {
				return Error("flush", name, zfs.ErrNotFound)
			}
			fs.Content, fs.Dirty = fs.Content+fs.Dirty, ""
			s.FS[name] = fs
			return nil
		})
	})
}

// CreateIntentLog checks that the file system exists.
func (p *Pool) CreateIntentLog(_ context.Context, name string) error {
	return p.between(eachOf(IntentLog, name), func() error {
		return p.read(func(s *State) error {
			if _, ok := s.FS[name]; !ok {
				return Error("create intent log", name, zfs.ErrNotFound)
			}
			return nil
		})
	})
}

// Attach mounts a snapshot until the returned Closer is closed. Background goroutines call
// it at any time, so it is not a Call.
func (p *Pool) Attach(_ context.Context, name string) (io.Closer, error) {
	err := p.read(func(s *State) error {
		if _, ok := s.ContentOf(name); !ok {
			return Error("mount", name, zfs.ErrNotFound)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	p.Edit(func(s *State) { s.Attached[name]++ })
	return closeFunc(func() error {
		return p.between(eachOf(Detach, name), func() error {
			p.Edit(func(s *State) { s.Attached[name]-- })
			return nil
		})
	}), nil
}

// Device returns the same device for all file systems.
func (p *Pool) Device(context.Context, string) (uint64, error) { return 7, nil }

// MountAt checks that the file system exists.
func (p *Pool) MountAt(_ context.Context, name, _ string) error {
	return p.call(MountAt, []string{name}, func() error {
		return p.read(func(s *State) error {
			if _, ok := s.FS[name]; !ok {
				return Error("mount", name, zfs.ErrNotFound)
			}
			return nil
		})
	})
}

type closeFunc func() error

func (f closeFunc) Close() error { return f() }

func (p *Pool) Written(_ context.Context, name, since string) (n uint64, err error) {
	err = p.call(Written, []string{name}, func() error {
		return p.read(func(s *State) error {
			fs, ok := s.FS[name]
			switch _, found := s.ContentOf(since); {
			case !ok || !found:
				return Error("written", name, zfs.ErrNotFound)
			case fs.Origin != since:
				return Error("written", name, zfs.ErrInvalid)
			}
			n = s.used(name)
			return nil
		})
	})
	return n, err
}

// Objects returns 7 for an empty file system and one more for each ";" of content.
func (p *Pool) Objects(_ context.Context, name string) (n uint64, err error) {
	err = p.call(Objects, []string{name}, func() error {
		return p.read(func(s *State) error {
			content, ok := s.ContentOf(name)
			if !ok {
				return Error("objects", name, zfs.ErrNotFound)
			}
			n = 7 + uint64(strings.Count(content, ";"))
			return nil
		})
	})
	return n, err
}
