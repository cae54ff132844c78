package zfs

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// The constants of linux/ioprio.h, which package unix lacks.
const (
	ioprioWhoProcess = 1
	ioprioClassIdle  = 3 << 13
)

// WithIdleIO runs do on a thread in the idle class of the disks. The thread ends with
// do, because leaving the class may need a privilege. If the kernel refuses the class,
// do runs as usual.
//
// The idle class of the processor is not used: a call to ZFS that changes something
// keeps a txg open for a moment, and a thread that gets no processor then delays
// everyone's txg.
func WithIdleIO(do func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked
		_, _, _ = unix.Syscall(unix.SYS_IOPRIO_SET, ioprioWhoProcess, 0, ioprioClassIdle)
		done <- do()
	}()
	return <-done
}
