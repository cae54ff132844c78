// Package rig sets up what the bench measures on, and takes it down again: a
// pool, file systems beside it, containerd once for each contender, and the
// daemons under test. All of it lies in one temporary directory, or on disks
// that were named.
package rig
