package waits

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// ErrUnavailable is the error of Start where the kernel has no such probes.
var ErrUnavailable = errors.New("no probes on the kernel's functions")

// tracing is where tracefs is mounted.
const tracing = "/sys/kernel/tracing"

// waiters are the functions that wait until a txg is on disk, of all releases of OpenZFS.
// txg_wait_synced is in each. In 2.1, 2.2 and the first of 2.3 it and txg_wait_synced_sig
// call a static function. In 2.3.9 and 2.4 it calls txg_wait_synced_flags, which interruptible
// waits (of channel programs) call directly. All have the txg as their second parameter.
var waiters = []string{"txg_wait_synced", "txg_wait_synced_sig", "txg_wait_synced_flags"}

// blockers are the functions in which a waiter blocks if the txg is not on disk.
var blockers = []string{"__cv_wait_io", "__cv_wait_io_sig"}

const (
	namePrefix = "zfstpl_waits_"
	// maxReturns is how many threads a return probe follows at the same time.
	maxReturns = 1024
)

// probe is a set of probes and the instance of tracefs that has their trace.
type probe struct {
	name   string // of the instance and of the probes' group
	events []string
}

var probes atomic.Int32 // numbers the probes of this process

// newProbe starts to trace the threads of a process, those that it starts later, and the
// processes that it starts later.
func newProbe(pid int) (_ *probe, err error) {
	if _, err := os.Stat(filepath.Join(tracing, "kprobe_events")); err != nil {
		return nil, fmt.Errorf("%w: this kernel has no CONFIG_KPROBE_EVENTS, or tracefs is not mounted: %w", ErrUnavailable, err)
	}
	if err := removeLeftovers(); err != nil {
		return nil, err
	}
	p := &probe{name: fmt.Sprintf("%s%d_%d", namePrefix, os.Getpid(), probes.Add(1))}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	if err := p.define(); err != nil {
		return nil, err
	}
	if err := os.Mkdir(p.path(), 0o700); err != nil {
		return nil, err
	}
	// The clock orders the events of all processors. Threads are followed from their creation.
	err = errors.Join(p.write("trace_clock", "mono"), p.write("options/event-fork", "1"))
	if err != nil {
		return nil, err
	}
	if err := p.follow(pid); err != nil {
		return nil, err
	}
	for _, e := range p.events {
		if strings.HasPrefix(e, beginEvent) {
			if err := p.write(filepath.Join("events", p.name, e, "trigger"), "stacktrace"); err != nil {
				return nil, err
			}
		}
	}
	return p, p.write(filepath.Join("events", p.name, "enable"), "1")
}

// define defines the probes. A release of OpenZFS has not all functions.
func (p *probe) define() error {
	known, err := knownFunctions()
	if err != nil {
		return err
	}
	for _, f := range known[beginEvent] {
		// The kernel takes the parameters of a function from its begin only.
		err := errors.Join(p.add("p", beginEvent+f, f+" txg=$arg2:u64"), p.add("r"+strconv.Itoa(maxReturns), endEvent+f, f))
		if err != nil {
			return err
		}
	}
	for _, f := range known[blockEvent] {
		if err := p.add("p", blockEvent+f, f); err != nil {
			return err
		}
	}
	return nil
}

// knownFunctions returns which of the waiters and of the blockers the kernel has, by the
// prefix of their events.
func knownFunctions() (map[string][]string, error) {
	symbols, err := os.ReadFile("/proc/kallsyms")
	if err != nil {
		return nil, err
	}
	known := make(map[string][]string)
	for line := range strings.Lines(string(symbols)) {
		// The address, the type, the name, and the module in brackets.
		f := strings.Fields(line)
		switch {
		case len(f) < 3:
		case slices.Contains(waiters, f[2]):
			known[beginEvent] = append(known[beginEvent], f[2])
		case slices.Contains(blockers, f[2]):
			known[blockEvent] = append(known[blockEvent], f[2])
		}
	}
	if len(known) < 2 {
		return nil, fmt.Errorf("%w: the kernel lacks all of %s, or all of %s; is the module zfs loaded?",
			ErrUnavailable, strings.Join(waiters, ", "), strings.Join(blockers, ", "))
	}
	return known, nil
}

// add defines a probe. The kernel's own error is "invalid argument" for every reason.
func (p *probe) add(kind, event, where string) error {
	definition := fmt.Sprintf("%s:%s/%s %s", kind, p.name, event, where)
	if err := appendTo(filepath.Join(tracing, "kprobe_events"), definition); err != nil {
		reasons, _ := os.ReadFile(filepath.Join(tracing, "error_log")) // without it the error is less clear
		return fmt.Errorf("probe %q: %w; the kernel's last reasons:\n%s", definition, err, reasons)
	}
	p.events = append(p.events, event)
	return nil
}

// follow adds the threads of a process. A thread that one of them starts meanwhile is followed
// if its parent was, so follow repeats until it finds no new one.
func (p *probe) follow(pid int) error {
	added := make(map[string]bool)
	for {
		threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil {
			return err
		}
		more := false
		for _, t := range threads {
			if added[t.Name()] {
				continue
			}
			if err := appendTo(filepath.Join(p.path(), "set_event_pid"), t.Name()); err != nil {
				return err
			}
			added[t.Name()], more = true, true
		}
		if !more {
			return nil
		}
	}
}

// reset forgets the trace until now.
func (p *probe) reset() error {
	f, err := os.OpenFile(filepath.Join(p.path(), "trace"), os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

// read returns the trace since the last reset.
func (p *probe) read() (string, error) {
	if err := p.checkComplete(); err != nil {
		return "", err
	}
	text, err := os.ReadFile(filepath.Join(p.path(), "trace"))
	return string(text), err
}

// lostEvents matches the numbers of events that a processor's buffer lost.
var lostEvents = regexp.MustCompile(`(?m)^(?:overrun|commit overrun|dropped events): [1-9]`)

// checkComplete fails if the trace lacks events, because the buffer or the number of
// threads that a return probe follows was too small.
func (p *probe) checkComplete() error {
	files, err := filepath.Glob(filepath.Join(p.path(), "per_cpu/cpu*/stats"))
	if err != nil {
		return err
	}
	for _, file := range files {
		stats, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if lost := lostEvents.Find(stats); lost != nil {
			return fmt.Errorf("the trace lacks events: %s: %s", file, stats)
		}
	}
	profile, err := os.ReadFile(filepath.Join(tracing, "kprobe_profile"))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(profile)) {
		// The event, how often it happened, how often it was missed.
		if f := strings.Fields(line); len(f) == 3 && strings.HasPrefix(f[0], endEvent) && f[2] != "0" {
			return fmt.Errorf("the trace lacks returns: %s", line)
		}
	}
	return nil
}

// close removes the probes and the trace.
func (p *probe) close() error { return remove(p.name, p.events) }

// remove removes an instance and the probes of a group. A probe that runs at this moment is
// busy.
func remove(name string, events []string) error {
	instance := filepath.Join(tracing, "instances", name)
	err := retryBusy(func() error { return syscall.Rmdir(instance) })
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	for _, e := range events {
		err = errors.Join(err, retryBusy(func() error {
			return appendTo(filepath.Join(tracing, "kprobe_events"), "-:"+name+"/"+e)
		}))
	}
	return err
}

func retryBusy(f func() error) (err error) {
	for range 50 {
		if err = f(); !errors.Is(err, syscall.EBUSY) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
	return err
}

// definition matches a probe of this package in the kernel's list: its group with the PID of
// the process that made it, and its event.
var definition = regexp.MustCompile(`(?m)^\w+:(` + namePrefix + `(\d+)_\d+)/(\w+) `)

// removeLeftovers removes the probes of processes that ended without a call to close.
func removeLeftovers() (err error) {
	list, err := os.ReadFile(filepath.Join(tracing, "kprobe_events"))
	if err != nil {
		return err
	}
	for _, m := range definition.FindAllStringSubmatch(string(list), -1) {
		if _, statErr := os.Stat("/proc/" + m[2]); errors.Is(statErr, fs.ErrNotExist) {
			err = errors.Join(err, remove(m[1], []string{m[3]}))
		}
	}
	return err
}

func (p *probe) path() string { return filepath.Join(tracing, "instances", p.name) }

// write writes to a file of the instance.
func (p *probe) write(file, text string) error { return appendTo(filepath.Join(p.path(), file), text) }

// appendTo writes to a file of tracefs without O_TRUNC, which would remove the probes of
// other programs.
func appendTo(file, text string) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text + "\n")
	return errors.Join(err, f.Close())
}
