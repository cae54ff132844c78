package snapshotter

import (
	"context"
	"fmt"
	"math"
	"strconv"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
)

// maxQuota is the largest size a label can say, in bytes. Together with what
// any template refers to it fits a property of ZFS.
const maxQuota = math.MaxInt64

// maxSize is what the label containerd.io/snapshot/max-size says of an active
// snapshot: bytes in decimal, greater than zero. Zero stands for no label. Of an
// extraction the label is not looked at, for the image wrote it.
func maxSize(info snapshots.Info) (uint64, error) {
	text, given := info.Labels[snapshots.LabelSnapshotMaxSize]
	if !given || info.Kind != snapshots.KindActive || isExtraction(info) {
		return 0, nil
	}
	size, err := strconv.ParseUint(text, 10, 63)
	if err != nil || size == 0 {
		return 0, fmt.Errorf("snapshot %q: label %s is %.80q, and not a number of bytes greater than zero: %w",
			info.Name, snapshots.LabelSnapshotMaxSize, text, errdefs.ErrInvalidArgument)
	}
	return size, nil
}

// quota is what a new runtime may refer to at most, in bytes, or zero where it
// has no bound: what its template has and, on top of that, the size that its
// label or else the configuration says. So the size bounds what the container
// adds. To unpack a layer there is no bound.
func (s *Snapshotter) quota(ctx context.Context, r *record) (uint64, error) {
	size, err := maxSize(r.info)
	if err != nil {
		return 0, err
	}
	if size == 0 && !isExtraction(r.info) {
		size = s.config.Quota
	}
	if size == 0 {
		return 0, nil
	}
	refers, err := s.referenced(ctx, r.template)
	if err != nil {
		return 0, poolError(fmt.Sprintf("prepare of %q", r.info.Name), err)
	}
	return refers + size, nil
}

// refers answers the bytes a template refers to. It is asked for once.
func (s *Snapshotter) referenced(ctx context.Context, t *template) (uint64, error) {
	s.index.mu.RLock()
	known := t.refers
	s.index.mu.RUnlock()
	if known != 0 {
		return known, nil
	}
	space, err := s.pool.Space(ctx, t.Dataset())
	if err != nil {
		return 0, err
	}
	s.index.mu.Lock()
	defer s.index.mu.Unlock()
	t.refers = space.Referenced
	return t.refers, nil
}
