//go:build !linux

package plugin

import (
	"os"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// mountOf returns nil: the mount of a directory is not known on this platform.
var mountOf = func(*os.Root) (*mountinfo.Info, error) { return nil, nil }

// unmount unmounts what is mounted at path. It returns an error if that is busy. It was
// compiled, never run.
func unmount(_ int, path string) error { return unix.Unmount(path, 0) }
