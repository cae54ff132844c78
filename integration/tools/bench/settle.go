//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"
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
	before, err := processorTime(pid)
	if err != nil {
		return err
	}
	for end := time.Now().Add(settlePatience); time.Now().Before(end); {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(settleQuiet):
		}
		now, err := processorTime(pid)
		if err != nil {
			return err
		}
		if now-before <= settleUse {
			return nil
		}
		before = now
	}
	return nil
}

// processorTime returns the processor time of the threads of a process. Time of threads that end
// is lost, so that it can decrease.
func processorTime(pid int) (time.Duration, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		var ns int64
		if _, err := fmt.Sscan(string(text), &ns); err != nil {
			return 0, fmt.Errorf("%s: %w", file, err)
		}
		sum += time.Duration(ns)
	}
	return sum, nil
}
