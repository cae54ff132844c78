package reaper

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/containerd/log"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// Foreign selects what a cleanup does with foreign snapshots, such as those of
// sanoid or zfs-auto-snapshot, of the datasets that it destroys.
type Foreign string

const (
	// ForeignKeep keeps the snapshots, and with them their dataset.
	ForeignKeep Foreign = "keep"
	// ForeignDestroy destroys them together with their dataset.
	ForeignDestroy Foreign = "destroy"
)

// Check returns an error if p is not a policy.
func (p Foreign) Check() error {
	switch p {
	case ForeignKeep, ForeignDestroy:
		return nil
	}
	return fmt.Errorf("%q is not one of %s, %s", string(p), ForeignKeep, ForeignDestroy)
}

// destroyForeign destroys the foreign snapshots that kept datasets of a batch from being
// destroyed, if that is the policy, and then tries these datasets again. It returns the
// datasets that are left, each with the reason.
func (r *Reaper) destroyForeign(ctx context.Context, order []string, left map[string]error) (map[string]error, error) {
	if r.config.Foreign != ForeignDestroy {
		return left, nil
	}
	freed := false
	for _, dataset := range slices.Sorted(maps.Keys(left)) {
		if !errors.Is(left[dataset], zfs.ErrForeign) {
			continue
		}
		if err := r.pool.DestroyForeign(ctx, layout.Extracted, dataset); err != nil {
			// The reason stays ErrForeign, whatever kept the snapshot.
			left[dataset] = fmt.Errorf("%w: %s", zfs.ErrForeign, err.Error())
			continue
		}
		freed = true
		log.G(ctx).WithField("dataset", dataset).Info("destroyed foreign snapshots of unused dataset")
	}
	if !freed {
		return left, nil
	}
	// Leaf first, as before: the origin of a destroyed dataset may be destroyable now.
	rest := slices.DeleteFunc(slices.Clone(order), func(dataset string) bool { return left[dataset] == nil })
	again, err := r.pool.Destroy(ctx, layout.Extracted, rest)
	if err != nil {
		return left, err
	}
	for dataset := range again {
		if snapshotLost(left[dataset]) {
			again[dataset] = left[dataset] // the second attempt cannot report that
		}
	}
	return again, nil
}
