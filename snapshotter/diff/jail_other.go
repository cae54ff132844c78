//go:build !linux

package diff

import (
	"os"

	"github.com/containerd/errdefs"
)

func jailed(*os.File, func() error) error { return errdefs.ErrNotImplemented }

func syncFS(*os.File) error { return errdefs.ErrNotImplemented }
