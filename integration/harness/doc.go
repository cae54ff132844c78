// Package harness starts the daemon and other programs for the tests that need a real pool.
// It has what these tests and the packages of their machinery share: connections, the output
// of programs, snapshots and files.
package harness
