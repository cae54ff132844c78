//go:build linux

package main

import (
	"context"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// settleQuiet is how long a process has been idle when it has settled. It is more than the
	// second after which zfstpl creates ready runtimes.
	settleQuiet = 1200 * time.Millisecond
	// settleUse is the processor time that an idle process uses in that time at most: a
	// fiftieth.
	settleUse = settleQuiet / 50
	// settlePatience is how long that takes at most.
	settlePatience = 30 * time.Second
)

// settle waits until a process does nothing in the background any more, so that its work is no
// part of another contender's measurement. There is nothing to wait for if pid is 0.
func settle(ctx context.Context, pid int) error {
	if pid == 0 {
		return nil
	}
	before, _ := processorTime(pid)
	for end := time.Now().Add(settlePatience); time.Now().Before(end); {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(settleQuiet):
		}
		now, ok := processorTime(pid)
		if !ok || now-before <= settleUse {
			return nil
		}
		before = now
	}
	return nil
}

// processorTime returns the processor time of a process, that of threads that have ended too. ok
// is false if there is no such process.
func processorTime(pid int) (used time.Duration, ok bool) {
	// The kernel's clock of a process is its PID in the upper bits and CPUCLOCK_SCHED.
	const scheduler = 2
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|scheduler), &ts); err != nil {
		return 0, false
	}
	return time.Duration(ts.Nano()), true
}
