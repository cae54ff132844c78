// Package waits counts, from outside the code under test, what a process waits for: the
// transaction groups (txgs) that must be on disk before its calls return, and the commits of
// the ZIL. For tests and for the bench only.
//
// Txgs come from probes on the kernel module's functions that wait for a txg, in an instance
// of tracefs of their own. ZIL commits come from the module's kstats. The package knows
// nothing of the process but its PID, and must not know the snapshotter, its protocol or any
// counter of theirs.
package waits
