// Package zfs is a client of OpenZFS: it lists datasets, changes them in
// transactions and measures them. It does not know containerd, nor what the names
// and properties mean.
//
// Changes are lists of [Op]. [Client.Apply] carries out a list as one channel
// program, that is, in one transaction group (txg): after a crash of the machine
// the pool has all of it or none. If only the process that runs the program is
// killed, the pool may have any first part of it. Releases below 2.4 cannot clone
// in channel programs; there, a list with a clone takes several steps.
//
// The package checks every name and property before any call, because channel
// programs check nothing. Errors are *[Error]: they name the operation and the
// dataset and wrap a kind such as ErrExists or ErrNotFound.
//
// A call that changes the pool is not cancelled when its context ends, because a
// transaction cannot be. Callers that must return at once let it finish in the
// background.
package zfs
