package reaper

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/containerd/log"

	"github.com/zfstpl/zfstpl/snapshotter/holders"
	"github.com/zfstpl/zfstpl/snapshotter/internal/state"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// reportLeftovers backs off datasets that could not be destroyed, and logs the reason and
// a fix, once for each reason. It logs nothing about the origin of a clone of ours that
// could not be destroyed: the message about the clone is enough.
func (r *Reaper) reportLeftovers(ctx context.Context, left map[string]error) {
	var busy []string
	for dataset, err := range left {
		if errors.Is(err, zfs.ErrBusy) {
			busy = append(busy, dataset)
		}
	}
	var found map[string][]holders.Mount
	if len(busy) > 0 {
		found = r.config.Holders(busy...)
	}
	for _, dataset := range slices.Sorted(maps.Keys(left)) {
		err := left[dataset]
		if errors.Is(err, zfs.ErrHasClones) && r.Index.HasClone(dataset) {
			r.Index.ClearBackoff(dataset)
			continue
		}
		field, value, fix := r.explain(ctx, dataset, err, found[dataset])
		if r.Index.BackOff(dataset, err.Error()+value, time.Now()) {
			entry := log.G(ctx).WithError(err).WithField("dataset", dataset)
			if value != "" {
				entry = entry.WithField(field, value)
			}
			if fix != "" {
				entry = entry.WithField("fix", fix)
			}
			entry.Warn("failed to destroy dataset")
		}
	}
}

// describeUsers describes the processes that use a file system without a mount point. It
// returns "" if it finds none.
func (r *Reaper) describeUsers(ctx context.Context, dataset string) string {
	device, err := r.pool.Device(ctx, dataset)
	if err != nil {
		return ""
	}
	var words []string
	for _, u := range r.config.Users(device) {
		words = append(words, u.String())
	}
	return strings.Join(words, "; ")
}

// explain returns what keeps a dataset from being destroyed, its processes, mounts or
// snapshots, as a log field with its value, and a fix for the administrator. Each may be
// empty.
func (r *Reaper) explain(ctx context.Context, dataset string, err error, mounts []holders.Mount) (field, value, fix string) {
	switch {
	case errors.Is(err, zfs.ErrBusy) && len(mounts) == 0:
		const fix = "end the program that uses the dataset"
		if users := r.describeUsers(ctx, dataset); users != "" {
			return "holders", users, fix
		}
		return "holders", "no inspected process has the dataset mounted; a file may be open since a lazy unmount, or a snapshot may be held", fix
	case errors.Is(err, zfs.ErrBusy):
		var places []string
		for _, m := range mounts {
			places = append(places, m.String())
		}
		m := mounts[0]
		return "holders", strings.Join(places, "; "),
			fmt.Sprintf("end the program that uses the dataset, or unmount it in its mount namespace: nsenter -t %d -m umount %q", m.PID, m.Mountpoint)
	case errors.Is(err, zfs.ErrHasClones):
		return "", "", fmt.Sprintf("destroy or promote the foreign clones of its snapshots, which 'zfs list -r -t snapshot -o name,clones %s' lists", dataset)
	case errors.Is(err, zfs.ErrForeign):
		list, listErr := r.pool.List(ctx, dataset)
		if listErr != nil {
			return "", "", ""
		}
		var names []string
		for _, d := range list {
			if d.Name == dataset {
				names = state.ForeignSnapshots(d)
			}
		}
		return "snapshots", strings.Join(names, ", "), ""
	}
	return "", "", ""
}
