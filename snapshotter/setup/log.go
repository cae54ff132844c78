package setup

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
)

// logProperties are the properties of the base's own file system that make a change durable as
// soon as its log is synchronised, and fast.
var logProperties = map[string]string{"sync": "standard", "logbias": "latency"}

// FixLog sets logProperties of the base. Storage and runtime get the values that they inherited
// before, as properties of their own, because these are the decision of the administrator.
func FixLog(ctx context.Context, pool Pool, base layout.Base) error {
	children := []string{base.Storage(), base.Runtime()}
	values, err := pool.PropertiesOf(ctx, append(children, base.String()), slices.Sorted(maps.Keys(logProperties)))
	if err != nil {
		return err
	}
	fixes := make(map[string]string)
	for name, want := range logProperties {
		if values[base.String()][name].Value != want {
			fixes[name] = want
		}
	}
	if len(fixes) == 0 {
		return nil
	}
	for _, child := range children {
		keep := make(map[string]string)
		for name := range fixes {
			if p := values[child][name]; !p.Local {
				keep[name] = p.Value
			}
		}
		if len(keep) == 0 {
			continue
		}
		if err := pool.SetNative(ctx, child, keep); err != nil {
			return err
		}
	}
	return pool.SetNative(ctx, base.String(), fixes)
}

// SyncReader reads the property sync. *zfs.Client implements it.
type SyncReader interface {
	SyncDisabled(ctx context.Context, filesystem string) (bool, error)
}

// CheckLog returns an error if what is synchronised in the base's file system is not durable.
func CheckLog(ctx context.Context, pool SyncReader, base layout.Base) error {
	disabled, err := pool.SyncDisabled(ctx, base.String())
	if err != nil {
		return err
	}
	if disabled {
		return fmt.Errorf("dataset %s has sync=disabled: 'zfs set sync=standard %s' makes its log durable", base, base)
	}
	return nil
}
