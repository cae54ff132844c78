package snapshotter

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"github.com/zfstpl/zfstpl/snapshotter/internal/record"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
)

// maxRanges is UID_GID_MAP_MAX_EXTENTS, the kernel's limit for one mapping.
const maxRanges = 340

// idRange maps count IDs of a container, from inside on, to IDs of the host, from outside
// on.
type idRange struct{ inside, outside, count uint64 }

// idmapOptions returns the mount options with which containerd mounts a snapshot for a user
// namespace, none without the labels. They map the whole file system, including its root
// directory, so no owner on it changes: root's files in the template are root's in the
// container. It ignores the labels of an extraction, which come from the image.
func idmapOptions(info snapshots.Info) ([]string, error) {
	if info.Kind == snapshots.KindCommitted || record.IsExtraction(info) {
		return nil, nil
	}
	uids, gids := info.Labels[snapshots.LabelSnapshotUIDMapping], info.Labels[snapshots.LabelSnapshotGIDMapping]
	if uids == "" && gids == "" {
		return nil, nil
	}
	for _, label := range []string{snapshots.LabelSnapshotUIDMapping, snapshots.LabelSnapshotGIDMapping} {
		if err := checkIDMap(info.Labels[label]); err != nil {
			return nil, fmt.Errorf("snapshot %q: label %s: %w: %w", info.Name, label, err, errdefs.ErrInvalidArgument)
		}
	}
	return []string{"uidmap=" + uids, "gidmap=" + gids}, nil
}

// remaps reports whether a commit is one in which containerd itself changed the owners of
// all files for a user namespace. containerd does so if its configuration lacks the
// capability remap-ids. It sets the labels on children of such a commit too, but an
// idmapped mount of them would map the IDs twice.
func remaps(name, key string) bool {
	return layout.ClientName(key) == layout.ClientName(name)+"-remap"
}

// checkIDMap returns an error if the kernel would refuse a mapping, or if it does not map
// root. A mapping is a list of "<inside>:<outside>:<count>", separated by commas.
func checkIDMap(text string) error {
	if text == "" {
		return errors.New("is missing; set the labels for users and groups together")
	}
	parts := strings.Split(text, ",")
	if len(parts) > maxRanges {
		return fmt.Errorf("has %d ranges, more than the %d that Linux allows", len(parts), maxRanges)
	}
	var ranges []idRange
	for _, part := range parts {
		r, err := parseIDRange(part)
		if err != nil {
			return err
		}
		ranges = append(ranges, r)
	}
	if !slices.ContainsFunc(ranges, func(r idRange) bool { return r.inside == 0 }) {
		return fmt.Errorf("%.80q does not map root (ID 0)", text)
	}
	for _, first := range []func(idRange) uint64{
		func(r idRange) uint64 { return r.inside }, func(r idRange) uint64 { return r.outside },
	} {
		slices.SortFunc(ranges, func(a, b idRange) int { return cmp.Compare(first(a), first(b)) })
		for i := 1; i < len(ranges); i++ {
			if first(ranges[i-1])+ranges[i-1].count > first(ranges[i]) {
				return fmt.Errorf("%.80q maps an ID twice", text)
			}
		}
	}
	return nil
}

func parseIDRange(text string) (idRange, error) {
	words := strings.Split(text, ":")
	if len(words) != 3 {
		return idRange{}, fmt.Errorf("%.80q is not <container ID>:<host ID>:<count>", text)
	}
	var numbers [3]uint64
	for i, word := range words {
		// ParseUint with base 10 accepts digits only.
		n, err := strconv.ParseUint(word, 10, 32)
		if err != nil {
			return idRange{}, fmt.Errorf("%.80q is not <container ID>:<host ID>:<count>", text)
		}
		numbers[i] = n
	}
	r := idRange{numbers[0], numbers[1], numbers[2]}
	// The last ID, 2^32-1, means "no ID".
	if r.count == 0 || r.inside+r.count > math.MaxUint32 || r.outside+r.count > math.MaxUint32 {
		return idRange{}, fmt.Errorf("%.80q maps no IDs, or IDs greater than %d", text, uint32(math.MaxUint32-1))
	}
	return r, nil
}
