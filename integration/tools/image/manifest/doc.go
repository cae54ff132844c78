//go:build linux

// Package manifest writes down what a root file system holds, one JSON line
// per path, so that two trees that never met can be compared: the tree an
// image was built from and the one a container sees.
//
// Times are left out on purpose. A layer truncates them to seconds and clamps
// them, so they never survive a round trip; everything recorded here must.
//
// It knows nothing of images, containers or ZFS.
package manifest
