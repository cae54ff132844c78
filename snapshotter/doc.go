// Package snapshotter is containerd's Snapshotter on ZFS templates.
//
// The pool is the only database. A snapshot containerd knows is a record: a
// user property of the dataset it speaks of. A committed snapshot is a record
// on a template, an active one a record on a runtime, a view a record on the
// template it shows. This package keeps an index of the records in memory,
// which one listing of the pool rebuilds, and answers every question from it.
//
// # Contract
//
// All methods are safe for use by any number of goroutines. Operations on one
// key are serialised, on different keys they run side by side; Remove waits for no
// other operation and counts as having come behind it. A method that
// changes the pool gives back as soon as its context ends; a transaction that
// had begun is then finished behind it, so that the pool is never between two
// states and the index never disagrees with it.
//
// Errors carry the errdefs kind containerd acts on. In particular AlreadyExists
// from Prepare means what containerd takes it to mean and nothing else, and
// Remove answers nil for what is not there, because containerd ends its garbage
// collection for good over any other answer but FailedPrecondition.
package snapshotter
