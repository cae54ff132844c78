//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// adoptOrphans makes this process the parent of whatever its descendants leave
// behind. Shims detach from containerd on purpose; this way they still are found
// as ours, by parentage and not by name.
func adoptOrphans() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("becoming a subreaper: %w", err)
	}
	return nil
}

// A process is a line of the process table.
type process struct {
	pid, parent int
	name        string
	state       byte
}

// descendants are all processes below this one, zombies included.
func descendants() ([]process, error) {
	table, err := processes()
	if err != nil {
		return nil, err
	}
	return below(os.Getpid(), table), nil
}

// below picks a process's descendants out of the process table.
func below(root int, table []process) []process {
	var found []process
	parents := []int{root}
	for len(parents) > 0 {
		var next []int
		for _, p := range table {
			if slices.Contains(parents, p.parent) {
				found = append(found, p)
				next = append(next, p.pid)
			}
		}
		parents = next
	}
	return found
}

func processes() ([]process, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	var table []process
	for _, path := range stats {
		content, err := os.ReadFile(path)
		if err != nil {
			continue // gone since
		}
		if p, ok := parseStat(content); ok {
			table = append(table, p)
		}
	}
	return table, nil
}

// parseStat reads "pid (name) state parent …", where the name may hold anything.
func parseStat(content []byte) (process, bool) {
	open, end := bytes.IndexByte(content, '('), bytes.LastIndexByte(content, ')')
	if open < 0 || end < open {
		return process{}, false
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(content[:open])))
	rest := strings.Fields(string(content[end+1:]))
	if err != nil || len(rest) < 2 {
		return process{}, false
	}
	parent, err := strconv.Atoi(rest[1])
	return process{pid: pid, parent: parent, name: string(content[open+1 : end]), state: rest[0][0]}, err == nil
}

// waitAlone waits until no descendant is left, reaping those that became ours.
// each is called with every one that is still there, in every round.
func waitAlone(limit time.Duration, each func(process)) error {
	deadline := time.Now().Add(limit)
	for {
		left, err := descendants()
		if err != nil || len(left) == 0 {
			return err
		}
		for _, p := range left {
			if p.state == 'Z' {
				// An orphan of ours; one that os/exec waits for may be reaped
				// here too, which only hides an exit status that is not used.
				_, _ = unix.Wait4(p.pid, nil, unix.WNOHANG, nil)
			} else if each != nil {
				each(p)
			}
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("still running: %s", describe(left))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func describe(processes []process) string {
	var words []string
	for _, p := range processes {
		words = append(words, fmt.Sprintf("%s (%d)", p.name, p.pid))
	}
	return strings.Join(words, ", ")
}
