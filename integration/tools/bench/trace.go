//go:build linux

package main

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/zfstpl/zfstpl/integration/tools/bench/internal/report"
	"github.com/zfstpl/zfstpl/integration/tools/bench/internal/result"
)

// traced is where the time of an operation goes: the time that it takes, and the processor time
// of this process, and of the others by PID. That of the kernel's threads is in it, that of
// processes that end meanwhile is not.
type traced struct {
	took, client time.Duration
	others       map[int]time.Duration
}

// trace calls f.
func trace(f func() error) (t traced, err error) {
	before, err := othersTimes()
	if err != nil {
		return t, err
	}
	own, _ := processorTime(os.Getpid()) // without what it takes to read the others'
	began := time.Now()
	err = f()
	t.took = time.Since(began)
	now, _ := processorTime(os.Getpid())
	if err != nil {
		return t, err
	}
	t.client = now - own
	if t.others, err = othersTimes(); err != nil {
		return t, err
	}
	for pid := range t.others {
		t.others[pid] -= before[pid]
	}
	return t, nil
}

// othersTimes returns the processor time of every other process.
func othersTimes() (map[int]time.Duration, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	times := make(map[int]time.Duration)
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || pid == os.Getpid() {
			continue
		}
		if used, ok := processorTime(pid); ok {
			times[pid] = used
		}
	}
	return times, nil
}

// recordTrace writes down where the time of an operation went. containerd's zfs plugin runs
// commands, whose times are lost.
func (b *bench) recordTrace(e *entrant, operation string, level int, t traced) error {
	if e.Name == report.ZFSPlugin {
		return nil
	}
	parts := map[string]time.Duration{
		report.TraceTook: t.took, report.TraceClient: t.client, report.TraceContainerd: t.others[e.Containerd],
	}
	if e.PID != e.Containerd {
		parts[report.TraceSnapshotter] = t.others[e.PID]
	}
	for pid, used := range t.others {
		if pid != e.PID && pid != e.Containerd {
			parts[report.TraceRest] += used
		}
	}
	var errs []error
	for part, d := range parts {
		errs = append(errs, b.write(result.Sample{
			Case:  result.Case{Operation: part + operation, Clones: level, Callers: 1, On: e.Name},
			Value: float64(d.Nanoseconds()), Unit: result.Nanoseconds,
		}))
	}
	return errors.Join(errs...)
}
