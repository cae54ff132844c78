// Package ioctl calls the ZFS kernel module through /dev/zfs, without the
// command and its libraries. It knows the layout of zfs_cmd_t, the numbers of
// the calls and the lists they exchange. It does not know what datasets,
// snapshots and properties are for, nor which errors matter to whom.
//
// Everything starts with [Open], whose [Handle] any number of goroutines may
// use at once. Calls run concurrently in the kernel.
//
// # Releases
//
// OpenZFS promises no stability here. The layout is the same from 2.1 to 2.4
// on every little-endian 64-bit Linux; Open refuses other releases unless told
// not to, and [Handle.SelfTest] proves on a pool that structures and lists are
// where this package looks for them. Elsewhere the package compiles and Open
// fails with [ErrUnsupported].
//
// # Contexts and signals
//
// Each call looks at its context before it begins. Once begun, a change is
// never cancelled. [Handle.WaitFree] and [Handle.Diff] are interrupted when
// their context ends; listings look between two calls.
//
// A signal that reaches a thread while a channel program waits for its
// transaction group stops the program between two of its steps, with what went
// before left in the pool; DESTROY_SNAPS is such a program too. The Go runtime
// signals its threads all the time. Changes therefore run with signals blocked
// on their thread. What ends the process cannot be blocked: that can leave the
// first steps of a program, see [Handle.Run]. So handle SIGTERM.
//
// # Names and units
//
// Names are full: "pool/a/b", "pool/a/b@snapshot". The kernel refuses bad names
// in calls, but not those inside channel programs. Sizes are bytes, numbers
// uint64 as the kernel has them.
//
// # Errors
//
// Every failed call answers an *[Error] that names the call and the dataset
// and wraps the kernel's syscall.Errno, or the context's error.
//
//	errno    means, from any call
//	EPERM    not root
//	EINVAL   a bad name, or see the call
//	ENOENT   the pool or dataset is not there
//	EAGAIN   the pool is suspended
//	EROFS    the pool is read-only
//	ENOSPC   the pool is out of space, the reserve included that the call may use
//	EBADF    the handle is closed
package ioctl
