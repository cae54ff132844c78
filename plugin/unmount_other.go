//go:build !linux

package plugin

import "golang.org/x/sys/unix"

// unmount unmounts what is mounted at path. It returns an error if that is busy. It was
// compiled, never run.
func unmount(_ int, path string) error { return unix.Unmount(path, 0) }
