//go:build !linux

package plugin

import "golang.org/x/sys/unix"

// unmount unmounts what is mounted at path, unless it is busy. Compiled, not tried.
func unmount(_ int, path string) error { return unix.Unmount(path, 0) }
