package inspect

import (
	"context"
	"strings"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/space"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// Gauge reports the use of datasets and of a pool. *zfs.Client implements it.
type Gauge interface {
	Space(ctx context.Context, filesystem string) (zfs.Space, error)
	State(ctx context.Context) (zfs.PoolState, error)
}

// Limits returns the limits of a base: its pool, and the quotas on the base, in it and
// on its ancestors. The pool's total excludes the space that ZFS reserves, so at 100
// percent writes fail.
func Limits(ctx context.Context, pool Gauge, base layout.Base) ([]space.Limit, error) {
	state, err := pool.State(ctx)
	if err != nil {
		return nil, err
	}
	var limits []space.Limit
	for _, name := range append([]string{base.Storage(), base.Runtime()}, ancestors(base.String())...) {
		s, err := pool.Space(ctx, name)
		if err != nil {
			return nil, err
		}
		if s.Quota > 0 {
			l := space.Limit{Of: "the quota of " + name, Used: s.Used, Total: s.Quota}
			if name == base.Runtime() {
				l.Blocked = "cached templates are in " + base.Storage() + ", which this quota does not bound"
			}
			limits = append(limits, l)
		}
		if name == base.Pool() {
			l := space.Limit{Of: "pool " + name, Pool: true, Used: s.Used, Total: s.Used + s.Available, Freeing: state.Freeing}
			if state.Checkpoint {
				l.Blocked = "the pool has a checkpoint, which keeps destroyed data ('zpool checkpoint -d " + name + "' discards it)"
			}
			limits = append(limits, l)
		}
	}
	return limits, nil
}

// ancestors returns a dataset and its ancestors, up to the pool's root dataset.
func ancestors(name string) []string {
	names := []string{name}
	for {
		i := strings.LastIndexByte(name, '/')
		if i < 0 {
			return names
		}
		name = name[:i]
		names = append(names, name)
	}
}
