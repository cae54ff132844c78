package snapshotter

import (
	"context"
	"fmt"
	"math"
	"strconv"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"github.com/zfstpl/zfstpl/snapshotter/errkind"
	"github.com/zfstpl/zfstpl/snapshotter/internal/index"
	"github.com/zfstpl/zfstpl/snapshotter/internal/record"
)

// maxQuota is the largest quota, in bytes. Its sum with the referenced bytes of a template
// fits a property of ZFS.
const maxQuota = math.MaxInt64

// maxSize returns the value of the label containerd.io/snapshot/max-size of an active
// snapshot, in bytes, or zero if it has no label. It ignores the label of an extraction,
// which comes from the image.
func maxSize(info snapshots.Info) (uint64, error) {
	text, given := info.Labels[snapshots.LabelSnapshotMaxSize]
	if !given || info.Kind != snapshots.KindActive || record.IsExtraction(info) {
		return 0, nil
	}
	size, err := strconv.ParseUint(text, 10, 63)
	if err != nil || size == 0 {
		return 0, fmt.Errorf("snapshot %q: label %s is %.80q, but must be a number of bytes greater than zero: %w",
			info.Name, snapshots.LabelSnapshotMaxSize, text, errdefs.ErrInvalidArgument)
	}
	return size, nil
}

// quota returns the refquota of a new runtime, in bytes, or zero for none. It is the size of
// the label or of the configuration plus the bytes that the template references, so the
// size limits what the container adds. An extraction has no quota.
func (s *Snapshotter) quota(ctx context.Context, r *index.Entry) (uint64, error) {
	size, err := maxSize(r.Info)
	if err == nil && size == 0 && !record.IsExtraction(r.Info) {
		size = s.config.Quota
	}
	quota := uint64(0)
	if err == nil {
		quota, err = s.quotaFor(ctx, r.Template, size)
	}
	if err != nil {
		return 0, errkind.Wrap(fmt.Sprintf("prepare of %q", r.Info.Name), err)
	}
	return quota, nil
}

// containerQuota returns the refquota of a runtime of t with the configured size.
func (s *Snapshotter) containerQuota(ctx context.Context, t *index.Template) (uint64, error) {
	return s.quotaFor(ctx, t, s.config.Quota)
}

func (s *Snapshotter) quotaFor(ctx context.Context, t *index.Template, size uint64) (uint64, error) {
	if size == 0 {
		return 0, nil
	}
	template, err := s.referenced(ctx, t)
	return template + size, err
}

// referenced returns the bytes that a template references. It queries the pool once.
func (s *Snapshotter) referenced(ctx context.Context, t *index.Template) (uint64, error) {
	if known := s.index.Sizes(t).Refers; known != 0 {
		return known, nil
	}
	space, err := s.pool.Space(ctx, t.Dataset())
	if err != nil {
		return 0, err
	}
	s.index.SetRefers(t, space.Referenced)
	return space.Referenced, nil
}
