package errkind

import (
	"errors"
	"fmt"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

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
