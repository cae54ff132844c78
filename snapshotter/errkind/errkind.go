// Package errkind maps the error kinds of package zfs, which does not know
// containerd, to those of errdefs.
package errkind

import (
	"errors"
	"fmt"

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

// Wrap wraps an error of the pool with its errdefs kind and a description of the
// operation. The pool's error names the dataset.
func Wrap(doing string, err error) error {
	if err == nil {
		return nil
	}
	if k := Of(err); k != nil {
		return fmt.Errorf("%s: %w: %w", doing, k, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// IsOutOfSpace reports whether ZFS refused an operation for lack of space.
func IsOutOfSpace(err error) bool {
	return errors.Is(err, zfs.ErrNoSpace) || errors.Is(err, zfs.ErrQuota)
}

// IsAmbiguous reports whether the outcome of a failed list of ops is unknown: the error has
// no known kind, or it includes a failed rollback of the first ops.
func IsAmbiguous(err error) bool {
	var several interface{ Unwrap() []error }
	return err != nil && (Of(err) == nil || errors.As(err, &several) && len(several.Unwrap()) > 1)
}
