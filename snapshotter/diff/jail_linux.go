package diff

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"

	"github.com/moby/sys/userns"
	"golang.org/x/sys/unix"
)

// jailed calls f on a thread whose root directory is root, and returns its error. No
// path or link that f follows leads out of the root. f must not start goroutines that
// use paths.
func jailed(root *os.File, f func() error) error {
	// Libraries read these once and cache them for the whole process. They must
	// not read them inside the root.
	_ = userns.RunningInUserNS()
	_, _ = time.Now().Zone()
	done := make(chan error)
	go jail(root, f, done)
	return <-done
}

func jail(root *os.File, f func() error, done chan<- error) {
	// The thread is never unlocked: the runtime ends it with the goroutine and
	// creates no other thread from it.
	runtime.LockOSThread()
	if unix.Gettid() == os.Getpid() {
		// The main thread represents the process in /proc and cannot end. It is
		// blocked here, so that the next goroutine runs on another thread.
		other := make(chan error)
		go jail(root, f, other)
		err := <-other
		runtime.UnlockOSThread()
		done <- err
		return
	}
	defer func() {
		// After a panic the caller must not wait forever.
		if p := recover(); p != nil {
			done <- fmt.Errorf("unpacking: panic: %v", p)
		}
	}()
	if err := enter(root); err != nil {
		done <- fmt.Errorf("enter %s: %w", root.Name(), err)
		return
	}
	done <- f()
}

func enter(root *os.File) error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	if err := unix.Fchdir(int(root.Fd())); err != nil {
		return os.NewSyscallError("fchdir", err)
	}
	if err := unix.Chroot("."); err != nil {
		return os.NewSyscallError("chroot", err)
	}
	syscall.Umask(0) // of this thread only, like its root
	return nil
}

func syncFS(root *os.File) error {
	return os.NewSyscallError("syncfs", unix.Syncfs(int(root.Fd())))
}
