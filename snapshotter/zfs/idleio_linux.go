package zfs

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// From linux/ioprio.h; package unix does not have them.
const (
	ioprioWhoProcess = 1
	ioprioClassIdle  = 3 << 13
)

// Idly runs do on a thread that gets what others leave of the disks. The thread
// ends with it: to take it back into the usual class may need a privilege. Where
// the kernel refuses, do runs as usual.
//
// The processor's idle class is not for this: a call to ZFS that changes something
// holds a txg open for a moment, and who is taken off the processor just then keeps
// everybody's txg from ending.
func WithIdleIO(do func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked
		_, _, _ = unix.Syscall(unix.SYS_IOPRIO_SET, ioprioWhoProcess, 0, ioprioClassIdle)
		done <- do()
	}()
	return <-done
}
