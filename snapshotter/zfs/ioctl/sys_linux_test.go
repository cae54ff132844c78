//go:build linux && (amd64 || arm64 || riscv64)

package ioctl

import (
	"context"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// sleep sleeps in the kernel and reports whether a signal ended it.
func sleep(d time.Duration) (interrupted bool) {
	ts := unix.NsecToTimespec(int64(d))
	return unix.Nanosleep(&ts, nil) == unix.EINTR
}

func TestInterruptWhenDoneInterruptsTheThread(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	restore := blockSignals(true)
	stop := interruptWhenDone(ctx)
	began := time.Now()
	for ctx.Err() == nil {
		sleep(10 * time.Second)
	}
	took := time.Since(began)
	stop()
	restore()
	if took > 5*time.Second {
		t.Errorf("not interrupted for %v", took)
	}
}

// Signals to the thread and to the process do not interrupt a call with blocked
// signals.
func TestBlockSignalsPreventsInterruption(t *testing.T) {
	restore := blockSignals(false)
	pid, thread := os.Getpid(), unix.Gettid()
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		for range 20 {
			_ = unix.Tgkill(pid, thread, unix.SIGURG)
			_ = unix.Kill(pid, unix.SIGURG)
			runtime.GC() // stops the world, which sends signals too
			time.Sleep(5 * time.Millisecond)
		}
	}()
	interrupted := sleep(300 * time.Millisecond)
	<-finished
	restore()
	if interrupted {
		t.Error("a signal interrupted the call")
	}
	// Blocked signals are delivered now, and the mask of the thread is restored.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var mask unix.Sigset_t
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, nil, &mask); err != nil {
		t.Fatal(err)
	}
	if mask.Val != (unix.Sigset_t{}).Val {
		t.Errorf("still blocked: %x", mask.Val)
	}
}
