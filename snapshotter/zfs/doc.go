// Package zfs is the client of OpenZFS: it lists datasets, changes them in
// transactions and measures them. It knows nothing of containerd, nor of what
// the names and properties it is given mean.
//
// Changes are lists of [Op]. [Client.Apply] carries a list out as one channel
// program, that is, in one transaction group (txg): when the machine dies the
// pool holds all of it or none. When only the process that runs the program is
// killed, the pool may hold any first part of it. Releases below 2.4 have no
// clone in channel programs; there a list with a clone falls into steps.
//
// Every name and property is checked before any call, because channel programs
// check nothing. Errors are *[Error]: they name the operation and the dataset
// and wrap one of the kinds ErrExists, ErrNotFound and so on.
//
// A call that changes the pool is not taken back when its context ends: a
// transaction cannot be. Callers who must answer at once let it finish behind
// them.
package zfs
