//go:build !linux

package zfs

// WithIdleIO runs do; this system has no idle class for a thread.
func WithIdleIO(do func() error) error { return do() }
