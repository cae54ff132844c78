package snapshotter

import (
	"fmt"

	"github.com/zfstpl/zfstpl/snapshotter/errkind"
)

// poolError gives an error of the pool its errdefs kind and says what was
// being done. It keeps the pool's error, which names the dataset.
func poolError(doing string, err error) error {
	if err == nil {
		return nil
	}
	if k := errkind.Of(err); k != nil {
		return fmt.Errorf("%s: %w: %w", doing, k, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}
