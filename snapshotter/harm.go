package snapshotter

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/containerd/log"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// FixPool is what looking at a base's properties needs of ZFS, and putting some right.
type FixPool interface {
	Release(ctx context.Context) (zfs.Release, error)
	PropertiesOf(ctx context.Context, filesystems, names []string) (map[string]map[string]zfs.Property, error)
	SetNative(ctx context.Context, filesystem string, props map[string]string) error
}

// BaseState is what FixBase found.
type BaseState struct {
	Harms []Harm
	// RuntimePlace is the mountpoint that the runtimes' parent had, where it was none of
	// ours: ZFS may have mounted runtimes below it.
	RuntimeMountpoint string
}

// FixBase looks at the properties of a base and of what InitBase made below it. Those that
// keep datasets from being mounted it puts right where they are lost; each other that does
// harm it returns.
func FixBase(ctx context.Context, pool FixPool, base layout.Base) (state BaseState, err error) {
	values, err := readBaseValues(ctx, pool, base)
	if err != nil {
		return state, err
	}
	for _, dataset := range []string{base.Storage(), base.Runtime()} {
		restore(ctx, pool, dataset, values.props[dataset])
	}
	if place := values.props[base.Runtime()]["mountpoint"].Value; place != childProperties["mountpoint"] {
		state.RuntimeMountpoint = place
	}
	state.Harms = values.harms(base)
	return state, nil
}

// Harms returns the properties of a base that do harm. It changes nothing.
func Harms(ctx context.Context, pool FixPool, base layout.Base) ([]Harm, error) {
	values, err := readBaseValues(ctx, pool, base)
	return values.harms(base), err
}

// baseValues is what the properties of a base are, and what would be chosen for a new one.
type baseValues struct {
	datasets []string
	props    map[string]map[string]zfs.Property // by dataset
	want     map[string]string
}

func readBaseValues(ctx context.Context, pool FixPool, base layout.Base) (l baseValues, err error) {
	release, err := pool.Release(ctx)
	if err != nil {
		return l, err
	}
	l.want = make(map[string]string)
	names := slices.Sorted(maps.Keys(childProperties))
	for _, d := range decisions {
		// What a pool lacks a feature for has no value that harms.
		if value, known := d.choose(release, nil); known && d.harm != "" {
			l.want[d.property] = value
			names = append(names, d.property)
		}
	}
	l.datasets = []string{base.String(), base.Storage(), base.Runtime(), base.Empty().Dataset()}
	l.props, err = pool.PropertiesOf(ctx, l.datasets, names)
	return l, err
}

// restore gives a child of the base its childProperties back where it has lost them.
func restore(ctx context.Context, pool FixPool, dataset string, props map[string]zfs.Property) {
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
			Warn("ZFS mounts datasets of the base by itself, and it could not be put right")
		return
	}
	entry.Warn("ZFS mounted datasets of the base by itself: their properties are put right")
}

// Harm is a property whose value does harm, and what helps.
type Harm struct {
	Dataset, Property, Value string
	Effect                   string // what harm it does
	Fix                      string // the command that helps, or what does where there is none
}

// Log warns of the harm.
func (h Harm) Log(ctx context.Context) {
	log.G(ctx).WithField("dataset", h.Dataset).WithField("property", h.Property).WithField("value", h.Value).
		WithField("harm", h.Effect).WithField("fix", h.Fix).Warn("a property of the base does harm")
}

// harms finds the values that do harm on the base, and those below it that are not only
// taken over.
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

// inherited reports whether a change on the base reaches what is below it.
func (d decision) inherited() bool { return !d.once && !d.perFilesystem }

// fix returns what puts a property right.
func (d decision) fix(base layout.Base, dataset, want string) string {
	switch {
	case d.once:
		return fmt.Sprintf("it can only be given at creation: make another base with 'zfstpl init' and use that instead of %s", base)
	case dataset == base.String(), d.perFilesystem:
		return fmt.Sprintf("zfs set %s=%s %s", d.property, want, dataset)
	default:
		return fmt.Sprintf("zfs inherit %s %s", d.property, dataset)
	}
}
