//go:build !linux

package holders

// FindOpen finds nothing on this system.
func FindOpen(string, uint64) []User { return nil }
