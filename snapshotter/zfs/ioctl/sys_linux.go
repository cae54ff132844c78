//go:build linux && (amd64 || arm64 || riscv64)

package ioctl

import (
	"context"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const platform = true

// ioctl makes one call. It blocks its thread.
func (h *Handle) ioctl(r request, c *command) (errno syscall.Errno) {
	err := h.conn.Control(func(fd uintptr) {
		_, _, errno = syscall.Syscall(syscall.SYS_IOCTL, fd, uintptr(r), uintptr(unsafe.Pointer(&c.raw)))
	})
	// c keeps the lists alive, which the kernel knows by address only.
	runtime.KeepAlive(c)
	if err != nil {
		return syscall.EBADF
	}
	return errno
}

// wakeSignal interrupts a call. The runtime uses it itself and ignores one that it did
// not send.
const wakeSignal = unix.SIGURG

// blockSignals blocks the signals of this goroutine's thread, which it locks, until
// the returned function is called. It does not block signals that a fault of the
// thread raises, and, if wakeable, wakeSignal.
func blockSignals(wakeable bool) (restore func()) {
	runtime.LockOSThread()
	var block, before unix.Sigset_t
	for i := range block.Val {
		block.Val[i] = ^block.Val[i]
	}
	for _, s := range []unix.Signal{unix.SIGSEGV, unix.SIGBUS, unix.SIGFPE, unix.SIGILL, unix.SIGTRAP, unix.SIGABRT, unix.SIGSYS} {
		unblock(&block, s)
	}
	if wakeable {
		unblock(&block, wakeSignal)
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &block, &before); err != nil {
		panic("ioctl: cannot block signals: " + err.Error()) // only for bad arguments
	}
	return func() {
		if err := unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil); err != nil {
			panic("ioctl: cannot unblock signals: " + err.Error())
		}
		runtime.UnlockOSThread()
	}
}

func unblock(set *unix.Sigset_t, s unix.Signal) {
	width := 8 * int(unsafe.Sizeof(set.Val[0]))
	n := int(s) - 1
	set.Val[n/width] &^= 1 << (n % width)
}

// interruptWhenDone sends wakeSignal to this goroutine's thread, which must be locked,
// when ctx ends, until the returned function is called. It sends repeatedly, because
// the first signal may arrive before the thread is in the kernel.
func interruptWhenDone(ctx context.Context) (stop func()) {
	if ctx.Done() == nil {
		return func() {}
	}
	pid, thread := os.Getpid(), unix.Gettid()
	finished := make(chan struct{})
	var watcher sync.WaitGroup
	watcher.Go(func() {
		select {
		case <-finished:
			return
		case <-ctx.Done():
		}
		ticker := time.NewTicker(10 * time.Millisecond)
		defer ticker.Stop()
		for {
			_ = unix.Tgkill(pid, thread, wakeSignal) // the thread exists: it waits for us
			select {
			case <-finished:
				return
			case <-ticker.C:
			}
		}
	})
	return func() {
		close(finished)
		watcher.Wait()
	}
}

// bigBuffer returns a buffer that takes memory only where it is written to, and the
// function that frees it.
func bigBuffer(size int) ([]byte, func(), error) {
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, nil, err
	}
	return b, func() { _ = unix.Munmap(b) }, nil
}

// memoryFile returns a file without a name that the kernel writes to.
func memoryFile(name string) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}
