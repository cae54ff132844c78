package diff

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"
)

// unreachable is the error of a content store that could not be used. Nothing was
// written anywhere.
type unreachable struct{ error }

// Unwrap returns the cause.
func (u unreachable) Unwrap() error { return u.error }

// fallBack returns NotImplemented for a store that cannot be reached or lacks the
// layer, so that containerd asks its next differ, which runs in containerd itself. It
// returns any other error unchanged. The text names the setting, because CRI asks only
// one differ and shows its error. The log has the error once, until the store has been
// used again.
func (s *Service) fallBack(ctx context.Context, err error) error {
	var cause unreachable
	switch {
	case err == nil:
		s.unavailable.Store(false)
		return nil
	case !errors.As(err, &cause) || !errdefs.IsUnavailable(cause) && !errdefs.IsNotFound(cause):
		return err
	}
	err = fmt.Errorf("%s: %w", err.Error(), errdefs.ErrNotImplemented)
	if s.contents.Setting != "" {
		err = fmt.Errorf("set %s to the socket of the containerd that uses this daemon: %w", s.contents.Setting, err)
	}
	if !s.unavailable.Swap(true) {
		log.G(ctx).WithError(err).Warn("content store is unavailable; leaving the layer to containerd's next differ")
	}
	return err
}
