package diff

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"
)

// unreached is why containerd's content store could not be used. Nothing has been written
// anywhere then.
type unreachable struct{ error }

// Unwrap returns the reason.
func (u unreachable) Unwrap() error { return u.error }

// passOn returns NotImplemented for a store that cannot be reached or that lacks the layer,
// so that containerd asks its next differ, which runs in containerd itself. Any other error
// stays. The text names the setting: CRI's pulls ask one differ only and show what that
// says. The log has it once, until the store has been used again.
func (s *Service) fallBack(ctx context.Context, err error) error {
	var why unreachable
	switch {
	case err == nil:
		s.unavailable.Store(false)
		return nil
	case !errors.As(err, &why) || !errdefs.IsUnavailable(why) && !errdefs.IsNotFound(why):
		return err
	}
	err = fmt.Errorf("%s: %w", err.Error(), errdefs.ErrNotImplemented)
	if s.contents.Setting != "" {
		err = fmt.Errorf("set %s to the socket of the containerd that uses this daemon: %w", s.contents.Setting, err)
	}
	if !s.unavailable.Swap(true) {
		log.G(ctx).WithError(err).Warn("containerd's content store cannot be used: its next differ is to do the work")
	}
	return err
}
