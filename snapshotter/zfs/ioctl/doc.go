// Package ioctl calls the ZFS kernel module through /dev/zfs, without the zfs
// command and its libraries. It knows the layout of zfs_cmd_t, the numbers of the
// calls and their lists. It does not know what datasets, snapshots and properties
// are used for, nor which errors matter to a caller.
//
// [Open] returns a [Handle], which any number of goroutines may use at once. The
// kernel runs their calls concurrently.
//
// # Releases
//
// OpenZFS does not promise a stable interface. The layout is the same from 2.1 to
// 2.4 on every little-endian 64-bit Linux. Open refuses other releases, and
// [Handle.SelfTest] proves on a pool that structures and lists are where this
// package expects them. On other systems the package compiles and Open fails with
// [ErrUnsupported].
//
// # Contexts and signals
//
// Each call checks its context before it begins. A change that has begun is never
// cancelled. The end of the context interrupts [Handle.WaitFree] and
// [Handle.Diff]; listings check it between two calls.
//
// A signal to a thread whose channel program waits for its transaction group stops
// the program between two of its steps, and the pool keeps the effect of the
// earlier steps. DESTROY_SNAPS is such a program too. The Go runtime sends signals
// to its threads all the time. Changes therefore run with signals blocked on their
// thread. A signal that ends the process cannot be blocked: it can leave the first
// steps of a program, see [Handle.Run]. Programs should handle SIGTERM.
//
// # Names and units
//
// Names are full: "pool/a/b", "pool/a/b@snapshot". The kernel refuses bad names in
// calls, but not those inside channel programs. Sizes are in bytes; numbers are
// uint64, as in the kernel.
//
// # Errors
//
// Every failed call returns an *[Error] that has the call and the dataset and wraps
// the kernel's syscall.Errno, or the error of the context.
//
//	errno    means, from any call
//	EPERM    not root
//	EINVAL   a bad name, or see the call
//	ENOENT   the pool or dataset does not exist
//	EAGAIN   the pool is suspended
//	EROFS    the pool is read-only
//	ENOSPC   the pool is out of space, including the reserve that the call may use
//	EBADF    the handle is closed
package ioctl
