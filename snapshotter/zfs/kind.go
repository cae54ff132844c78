package zfs

import (
	"errors"

	"github.com/containerd/errdefs"
)

// kinds maps the errors of this package to containerd's. There is no row that
// answers AlreadyExists: to containerd that word means that a layer need not be
// unpacked, so only the snapshotter itself may say it, about records.
var kinds = []struct{ zfs, containerd error }{
	{ErrNotFound, errdefs.ErrNotFound},
	{ErrBusy, errdefs.ErrFailedPrecondition},
	{ErrHasClones, errdefs.ErrFailedPrecondition},
	{ErrForeign, errdefs.ErrFailedPrecondition},
	{ErrNoSpace, errdefs.ErrResourceExhausted},
	{ErrQuota, errdefs.ErrResourceExhausted},
	{ErrPermission, errdefs.ErrPermissionDenied},
	{ErrInvalid, errdefs.ErrInvalidArgument},
	{ErrSuspended, errdefs.ErrUnavailable},
	{ErrUnavailable, errdefs.ErrUnavailable},
	{ErrExists, errdefs.ErrInternal},
}

// KindOf answers what containerd calls an error of this package; nil for one that
// it has no word for, and for any other.
func KindOf(err error) error {
	for _, k := range kinds {
		if errors.Is(err, k.zfs) {
			return k.containerd
		}
	}
	return nil
}
