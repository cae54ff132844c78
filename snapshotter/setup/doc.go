// Package setup creates a base and checks the properties of its datasets.
//
// It knows the layout of a base, the properties that a base inherits from the pool, and ZFS
// through small interfaces. It must not know records, the snapshotter and containerd.
package setup
