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

// ioctl makes one call. Its thread is the kernel's for as long as that takes.
func (h *Handle) ioctl(r request, c *command) (errno syscall.Errno) {
	err := h.conn.Control(func(fd uintptr) {
		_, _, errno = syscall.Syscall(syscall.SYS_IOCTL, fd, uintptr(r), uintptr(unsafe.Pointer(&c.raw)))
	})
	// c holds the lists that the kernel knows by number only.
	runtime.KeepAlive(c)
	if err != nil {
		return syscall.EBADF
	}
	return errno
}

// wakeSignal interrupts a call. The runtime uses it for itself and ignores
// what it did not send.
const wakeSignal = unix.SIGURG

// blockSignals keeps signals from this goroutine's thread until the function
// it answers is called. Those that a fault of the thread itself raises are
// left, and wakeSignal where wakeable.
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

// interruptWhenDone signals this goroutine's thread, which must be locked,
// when ctx ends, until the function it answers is called. It signals again and
// again because the first may come before the thread is in the kernel.
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
		again := time.NewTicker(10 * time.Millisecond)
		defer again.Stop()
		for {
			_ = unix.Tgkill(pid, thread, wakeSignal) // the thread is there: it waits for us
			select {
			case <-finished:
				return
			case <-again.C:
			}
		}
	})
	return func() {
		close(finished)
		watcher.Wait()
	}
}

// bigBuffer answers room for an answer of that size which costs memory only
// for what is written to it. It is freed by the function it answers.
func bigBuffer(size int) ([]byte, func(), error) {
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, nil, err
	}
	return b, func() { _ = unix.Munmap(b) }, nil
}

// memoryFile answers a file without a name, for the kernel to write to.
func memoryFile(name string) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}
