//go:build !linux

package zfs

// Idly runs do; this system has no idle classes for a thread.
func WithIdleIO(do func() error) error { return do() }
