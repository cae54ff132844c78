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

// jailed calls f on a thread whose root directory is root, and answers its error.
// No path that f uses leads out of it, by whatever links: an archive's names
// cannot either. f must not start goroutines that use paths.
func jailed(root *os.File, f func() error) error {
	// What a library asks the machine once and remembers for the whole process
	// must not be answered by what is in the root.
	_ = userns.RunningInUserNS()
	_, _ = time.Now().Zone()
	done := make(chan error)
	go jail(root, f, done)
	return <-done
}

func jail(root *os.File, f func() error, done chan<- error) {
	// The thread is never given back: the runtime ends it with the goroutine,
	// and makes no other thread from it.
	runtime.LockOSThread()
	if unix.Gettid() == os.Getpid() {
		// The first thread stands for the process in /proc and cannot end. It
		// is kept here meanwhile, so that the next goroutine gets another.
		again := make(chan error)
		go jail(root, f, again)
		err := <-again
		runtime.UnlockOSThread()
		done <- err
		return
	}
	defer func() {
		// A panic must not leave the caller waiting.
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
	syscall.Umask(0) // the thread's own, like its root
	return nil
}

func syncFS(root *os.File) error {
	return os.NewSyscallError("syncfs", unix.Syncfs(int(root.Fd())))
}
