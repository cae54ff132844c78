//go:build linux

// Package randtree makes random directory trees, does random things to them as
// programs do, and describes all of a tree, so that two can be
// compared. Everything follows from a seed. Run by root it makes devices, owners
// and attributes that only root can.
package randtree
