//go:build !linux

package mounts

import "errors"

// Supported reports whether file systems can be held mounted on this system.
const Supported = false

var errUnsupported = errors.New("held mounts: not available on this system")

func isZFS(string) (bool, error) { return false, errUnsupported }

func identify(string) (identity, uint64, error) { return identity{}, 0, errUnsupported }

func readMounts(string) (table, error) { return table{}, errUnsupported }

func isolate(string) error { return errUnsupported }

func sameDirectory(string, string) (bool, error) { return false, errUnsupported }

func detach(string) error { return errUnsupported }

func isBusyOrNotEmpty(error) bool { return false }
