// Package errkind says what containerd calls the errors of package zfs, which knows
// nothing of containerd.
package errkind

import (
	"errors"

	"github.com/containerd/errdefs"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// There is no row that answers AlreadyExists: to containerd that word means that a
// layer need not be unpacked, so only the snapshotter itself may say it, about records.
var table = []struct{ zfs, containerd error }{
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
	{zfs.ErrReadOnly, errdefs.ErrFailedPrecondition},
	{zfs.ErrExists, errdefs.ErrInternal},
}

// Of answers containerd's kind of an error; nil for one of package zfs that it has
// no word for, and for any other.
func Of(err error) error {
	for _, k := range table {
		if errors.Is(err, k.zfs) {
			return k.containerd
		}
	}
	return nil
}
