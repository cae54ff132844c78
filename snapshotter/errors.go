package snapshotter

import (
	"errors"
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// kinds maps the pool's errors to containerd's. There is no row that answers
// AlreadyExists: to containerd that word means that a layer need not be
// unpacked, so only the snapshotter itself may say it, about records.
var kinds = []struct{ zfs, containerd error }{
	{zfs.ErrNotFound, errdefs.ErrNotFound},
	{zfs.ErrBusy, errdefs.ErrFailedPrecondition},
	{zfs.ErrHasClones, errdefs.ErrFailedPrecondition},
	{zfs.ErrForeign, errdefs.ErrFailedPrecondition},
	{zfs.ErrNoSpace, errdefs.ErrResourceExhausted},
	{zfs.ErrQuota, errdefs.ErrResourceExhausted},
	{zfs.ErrPermission, errdefs.ErrPermissionDenied},
	{zfs.ErrInvalid, errdefs.ErrInvalidArgument},
	{zfs.ErrSuspended, errdefs.ErrUnavailable},
	{zfs.ErrUnavailable, errdefs.ErrUnavailable},
	{zfs.ErrExists, errdefs.ErrInternal},
}

// hasKind tells whether the pool said why it failed, and so that it did nothing.
func hasKind(err error) bool {
	for _, k := range kinds {
		if errors.Is(err, k.zfs) {
			return true
		}
	}
	return false
}

// poolError gives an error of the pool its errdefs kind and says what was
// being done. It keeps the pool's error, which names the dataset.
func poolError(doing string, err error) error {
	if err == nil {
		return nil
	}
	for _, k := range kinds {
		if errors.Is(err, k.zfs) {
			return fmt.Errorf("%s: %w: %w", doing, k.containerd, err)
		}
	}
	return fmt.Errorf("%s: %w", doing, err)
}
