// Package snapshotter implements containerd's Snapshotter with ZFS datasets.
//
// The pool is the only database. A containerd snapshot is a record: a user property of a
// dataset. The record of a committed snapshot and of a view is on a template, that of an
// active snapshot on a runtime. The package keeps an index of the records in memory and
// serves reads from it. Usage also queries the pool, and Stat and Usage write the record of
// a lost layer again. New rebuilds the index from one listing of the pool.
//
// The parts are packages below internal: the index in memory, the journal of changes that
// are written later, recovery at the start, the reaper that destroys, and mounts.
//
// The package knows containerd's snapshot interface, its labels and the form of its keys,
// the layout of a base (package layout), and ZFS through the interface Pool (package zfs).
// It must not know containerd's other services, its content store, media types and leases,
// the format of layers (package diff), gRPC, the configuration file and the process that
// it runs in. A caller's properties, such as its mount namespace, come in the context.
//
// # Contract
//
// All methods are safe for concurrent use. Operations on one key run one after the other,
// operations on different keys concurrently. Remove never waits for another operation; it
// has the same effect as a Remove after that operation. A method that writes, except Clean
// and Close, returns as soon as its context ends. A transaction that has begun is then
// completed, so the index and the pool agree.
//
// Errors have the errdefs kinds that containerd expects. AlreadyExists from Prepare means
// that the key exists, or that containerd finds a record of the requested layer, and
// nothing else. Remove returns nil for a snapshot that does not exist, because containerd
// stops its garbage collection for good at any error but FailedPrecondition.
package snapshotter
