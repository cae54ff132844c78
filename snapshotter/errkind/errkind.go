// Package errkind maps the error kinds of package zfs, which does not know
// containerd, to those of errdefs.
package errkind

import (
	"errors"

	"github.com/containerd/errdefs"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// table has no row for AlreadyExists: to containerd that means that a layer need not
// be unpacked, so only the snapshotter may return it, for records.
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

// Of returns containerd's kind of an error, or nil if it has none.
func Of(err error) error {
	for _, k := range table {
		if errors.Is(err, k.zfs) {
			return k.containerd
		}
	}
	return nil
}
