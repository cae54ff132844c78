package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/log"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// ForeignPolicy says what becomes of snapshots that somebody else, such as
// sanoid or zfs-auto-snapshot, took of a dataset that nobody needs any more.
type ForeignPolicy string

const (
	// KeepForeign leaves them alone. They keep their dataset, and nothing else,
	// from being destroyed.
	KeepForeign ForeignPolicy = "keep"
	// DestroyForeign destroys them together with their dataset.
	DestroyForeign ForeignPolicy = "destroy"
)

// Check refuses a word that is no policy.
func (p ForeignPolicy) Check() error {
	switch p {
	case "", KeepForeign, DestroyForeign:
		return nil
	}
	return fmt.Errorf("%q is none of %s, %s", string(p), KeepForeign, DestroyForeign)
}

// destroyForeign destroys, where that is the policy, the foreign snapshots that
// kept datasets of a batch from being destroyed, and then tries those again. It
// answers what is left after that, and why.
func (s *Snapshotter) destroyForeign(ctx context.Context, order []string, left map[string]error) (map[string]error, error) {
	if s.config.Foreign != DestroyForeign {
		return left, nil
	}
	freed := false
	for _, dataset := range slices.Sorted(maps.Keys(left)) {
		if !errors.Is(left[dataset], zfs.ErrForeign) {
			continue
		}
		if err := s.pool.DestroyForeign(ctx, layout.Extracted, dataset); err != nil {
			// Whatever kept the snapshot, it is foreign that keeps the dataset.
			left[dataset] = fmt.Errorf("%w: %s", zfs.ErrForeign, err.Error())
			continue
		}
		freed = true
		log.G(ctx).WithField("dataset", dataset).Info("destroyed the foreign snapshots of a dataset nobody needs")
	}
	if !freed {
		return left, nil
	}
	// Leaf first, as before: what a freed dataset stood on may go with it.
	rest := slices.DeleteFunc(slices.Clone(order), func(dataset string) bool { return left[dataset] == nil })
	again, err := s.pool.Destroy(ctx, layout.Extracted, rest)
	if err != nil {
		return left, err
	}
	for dataset := range again {
		if snapshotLost(left[dataset]) {
			again[dataset] = left[dataset] // it has no snapshot to lose any more
		}
	}
	return again, nil
}

// foreignSnapshots are the names of a dataset's snapshots that are not ours.
func foreignSnapshots(d zfs.Dataset) []string {
	var names []string
	for _, name := range d.Snapshots {
		if name != layout.Extracted && !strings.HasPrefix(name, zfs.TemporaryPrefix) {
			names = append(names, d.Name+"@"+name)
		}
	}
	slices.Sort(names)
	return names
}
