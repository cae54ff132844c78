package zfsfake

import (
	"context"
	"maps"
	"strings"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// Release returns the release of ZFS.
func (p *Pool) Release(context.Context) (zfs.Release, error) {
	if release := p.Now().Release; release != (zfs.Release{}) {
		return release, nil
	}
	return zfs.Release{Major: 2, Minor: 4}, nil
}

// Features returns which features the pool has.
func (p *Pool) Features(_ context.Context, names ...string) (map[string]bool, error) {
	enabled := make(map[string]bool)
	for _, name := range names {
		enabled[name] = true
	}
	for _, name := range p.Now().Lacks {
		enabled[name] = false
	}
	return enabled, nil
}

func (p *Pool) Mount(_ context.Context, name string) error {
	return p.call(Mount, []string{name}, func() error {
		p.Edit(func(s *State) { s.Mounted[name] = true })
		return nil
	})
}

func (p *Pool) SetNative(_ context.Context, name string, props map[string]string) error {
	return p.call(SetNative, []string{name}, func() error {
		return p.transact(nil, func(s *State) error {
			fs, ok := s.FS[name]
			if !ok {
				return Error("set", name, zfs.ErrNotFound)
			}
			maps.Copy(fs.Native, props)
			return nil
		})
	})
}

func (p *Pool) PropertiesOf(ctx context.Context, filesystems, names []string) (map[string]map[string]zfs.Property, error) {
	found := make(map[string]map[string]zfs.Property)
	for _, name := range filesystems {
		props, err := p.Properties(ctx, name, names...)
		if err != nil {
			return nil, err
		}
		found[name] = props
	}
	return found, nil
}

// Properties leaves out unknown properties.
func (p *Pool) Properties(_ context.Context, name string, names ...string) (map[string]zfs.Property, error) {
	found := make(map[string]zfs.Property)
	err := p.read(func(s *State) error {
		if _, ok := s.FS[name]; !ok {
			return Error("get", name, zfs.ErrNotFound)
		}
		for _, property := range names {
			if value, here, ok := s.property(name, property); ok {
				found[property] = zfs.Property{Value: value, Local: here}
			}
		}
		return nil
	})
	return found, err
}

// property returns the local or inherited value of a property. here reports whether it is
// local.
func (s *State) property(name, property string) (value string, here, ok bool) {
	if property == "mounted" {
		if s.Mounted[name] {
			return "yes", false, true
		}
		return "no", false, true
	}
	for from := name; from != ""; from = parentOf(from) {
		fs := s.FS[from]
		value, ok := fs.Native[property]
		if strings.Contains(property, ":") {
			value, ok = fs.Props[property]
		}
		if ok {
			return value, from == name, true
		}
		if property == "canmount" {
			return "on", false, true
		}
	}
	return "", false, false
}
