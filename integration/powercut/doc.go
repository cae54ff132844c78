//go:build linux

// Powercut runs in a machine whose power is about to be cut. It opens a pool
// that has lived through cuts before, holds what it finds there against the
// ledger of what was asked for, and then puts a mixed load on a real daemon,
// saying on standard output what it asks and what it gets. At a moment that
// follows from the seed it says "cut", and the reader of that cuts the power.
// The last machine removes everything instead.
//
// The test of this package is the other side: it boots the machines on one
// disk, keeps the ledger and kills QEMU.
package main
