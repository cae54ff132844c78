package inspect

import (
	"context"
	"path"

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
	names := []string{base.Storage(), base.Runtime()}
	for name := base.String(); name != "."; name = path.Dir(name) {
		names = append(names, name)
	}
	for _, name := range names {
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
