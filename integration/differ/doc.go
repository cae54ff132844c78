// Package differ runs the differ and a snapshotter in the process of a test, with containerd's
// own content store and leases.
package differ
