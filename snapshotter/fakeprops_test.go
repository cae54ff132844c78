package snapshotter

import (
	"context"
	"maps"
	"strings"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// fakeAbilities is the release and the missing features of a fake pool. The zero value is
// the latest release with all features.
type fakeAbilities struct {
	release zfs.Release
	lacks   []string // features
}

func (p *fakePool) Release(context.Context) (zfs.Release, error) {
	if p.abilities.release == (zfs.Release{}) {
		return zfs.Release{Major: 2, Minor: 4}, nil
	}
	return p.abilities.release, nil
}

func (p *fakePool) Features(_ context.Context, names ...string) (map[string]bool, error) {
	enabled := make(map[string]bool)
	for _, name := range names {
		enabled[name] = true
	}
	for _, name := range p.abilities.lacks {
		enabled[name] = false
	}
	return enabled, nil
}

func (p *fakePool) Mount(_ context.Context, name string) error {
	return p.call("mount", func() error {
		p.edit(func(s *fakeState) { s.mounted[name] = true })
		return nil
	})
}

func (p *fakePool) SetNative(_ context.Context, name string, props map[string]string) error {
	return p.call("setnative", func() error {
		return p.transact(func(s *fakeState) error {
			fs, ok := s.fs[name]
			if !ok {
				return fakeError("set", name, zfs.ErrNotFound)
			}
			maps.Copy(fs.native, props)
			return nil
		})
	})
}

func (p *fakePool) PropertiesOf(ctx context.Context, filesystems, names []string) (map[string]map[string]zfs.Property, error) {
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
func (p *fakePool) Properties(_ context.Context, name string, names ...string) (map[string]zfs.Property, error) {
	found := make(map[string]zfs.Property)
	err := p.read(func(s *fakeState) error {
		if _, ok := s.fs[name]; !ok {
			return fakeError("get", name, zfs.ErrNotFound)
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
func (s *fakeState) property(name, property string) (value string, here, ok bool) {
	if property == "mounted" {
		if s.mounted[name] {
			return "yes", false, true
		}
		return "no", false, true
	}
	for from := name; from != ""; from = parentOf(from) {
		fs := s.fs[from]
		value, ok := fs.native[property]
		if strings.Contains(property, ":") {
			value, ok = fs.props[property]
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
