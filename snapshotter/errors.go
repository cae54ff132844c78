package snapshotter

import (
	"fmt"

	"github.com/zfstpl/zfstpl/snapshotter/errkind"
)

// poolError wraps an error of the pool with its errdefs kind and a description of the
// operation. The pool's error names the dataset.
func poolError(doing string, err error) error {
	if err == nil {
		return nil
	}
	if k := errkind.Of(err); k != nil {
		return fmt.Errorf("%s: %w: %w", doing, k, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}
