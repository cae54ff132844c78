package setup

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/containerd/log"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// State is the result of Fix.
type State struct {
	Harms []Harm // harmful properties
	// RuntimeMountpoint is the mountpoint that the parent of the runtimes had, if that was
	// not legacy: ZFS may have mounted runtimes below it.
	RuntimeMountpoint string
}

// Fix checks the properties of a base and of the datasets that Init creates below
// it. It resets the properties that keep ZFS from mounting datasets, and returns the other
// harmful ones.
func Fix(ctx context.Context, pool Pool, base layout.Base) (state State, err error) {
	values, err := readBaseValues(ctx, pool, base)
	if err != nil {
		return state, err
	}
	for _, dataset := range []string{base.Storage(), base.Runtime()} {
		resetChildProperties(ctx, pool, dataset, values.props[dataset])
	}
	if mountpoint := values.props[base.Runtime()]["mountpoint"].Value; mountpoint != childProperties["mountpoint"] {
		state.RuntimeMountpoint = mountpoint
	}
	state.Harms = values.harms(base)
	return state, nil
}

// Harms returns the harmful properties of a base. It changes nothing.
func Harms(ctx context.Context, pool Pool, base layout.Base) ([]Harm, error) {
	values, err := readBaseValues(ctx, pool, base)
	return values.harms(base), err
}

// baseValues has the properties of a base and the values that a new base would get.
type baseValues struct {
	datasets []string
	props    map[string]map[string]zfs.Property // by dataset
	want     map[string]string
}

// readBaseValues reads childProperties and the properties that can be harmful.
func readBaseValues(ctx context.Context, pool Pool, base layout.Base) (l baseValues, err error) {
	release, err := pool.Release(ctx)
	if err != nil {
		return l, err
	}
	l.want = make(map[string]string)
	names := slices.Sorted(maps.Keys(childProperties))
	for _, d := range decisions {
		// A property whose feature the pool lacks has no harmful value.
		if value, known := d.choose(release, nil); known && d.harm != "" {
			l.want[d.property] = value
			names = append(names, d.property)
		}
	}
	l.datasets = []string{base.String(), base.Storage(), base.Runtime(), base.Empty().Dataset()}
	l.props, err = pool.PropertiesOf(ctx, l.datasets, names)
	return l, err
}

// resetChildProperties sets those childProperties of a child of the base that have another
// value. It logs a failure.
func resetChildProperties(ctx context.Context, pool Pool, dataset string, props map[string]zfs.Property) {
	missing := make(map[string]string)
	entry := log.G(ctx).WithField("dataset", dataset)
	for name, value := range childProperties {
		if p, known := props[name]; known && p.Value != value {
			missing[name] = value
			entry = entry.WithField(name, p.Value)
		}
	}
	if len(missing) == 0 {
		return
	}
	if err := pool.SetNative(ctx, dataset, missing); err != nil {
		entry.WithError(err).WithField("fix", fmt.Sprintf("zfs set canmount=off mountpoint=legacy %s", dataset)).
			Warn("failed to reset mount properties of dataset")
		return
	}
	entry.Warn("reset mount properties of dataset")
}

// Harm describes a property with a harmful value.
type Harm struct {
	Dataset, Property, Value string
	Effect                   string // what the value causes
	Fix                      string // the command that fixes it, or another instruction
}

// Log logs a warning about the harm.
func (h Harm) Log(ctx context.Context) {
	log.G(ctx).WithField("dataset", h.Dataset).WithField("property", h.Property).WithField("value", h.Value).
		WithField("harm", h.Effect).WithField("fix", h.Fix).Warn("harmful property of base")
}

// harms returns the harmful values of the base, and those of its children that they do not
// inherit.
func (l baseValues) harms(base layout.Base) []Harm {
	var found []Harm
	for _, d := range decisions {
		want := l.want[d.property]
		for _, dataset := range l.datasets {
			p, known := l.props[dataset][d.property]
			if !known || !d.harms(p.Value, want) || d.perFilesystem && dataset != base.Empty().Dataset() {
				continue
			}
			h := Harm{dataset, d.property, p.Value, d.harm, d.fix(base, dataset, want)}
			same := func(o Harm) bool { return o.Fix == h.Fix && o.Property == h.Property }
			if (dataset == base.String() || p.Local || !d.inherited()) && !slices.ContainsFunc(found, same) {
				found = append(found, h)
			}
		}
	}
	return found
}

// inherited reports whether a change on the base affects its children.
func (d decision) inherited() bool { return !d.once && !d.perFilesystem }

// fix returns the command or instruction that fixes a property.
func (d decision) fix(base layout.Base, dataset, want string) string {
	switch {
	case d.once:
		return fmt.Sprintf("it can only be set at creation: create another base with 'zfstpl init' and use it instead of %s", base)
	case dataset == base.String(), d.perFilesystem:
		return fmt.Sprintf("zfs set %s=%s %s", d.property, want, dataset)
	default:
		return fmt.Sprintf("zfs inherit %s %s", d.property, dataset)
	}
}
