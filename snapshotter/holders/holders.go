// Package holders finds out who has a ZFS dataset mounted, so that a person who
// reads "busy" in a log knows whom to ask.
//
// It reads /proc and changes nothing. What it finds is a moment's view:
// processes come and go while it looks.
package holders

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Proc is where Linux shows processes.
const Proc = "/proc"

// maxMounts bounds what is answered for one dataset.
const maxMounts = 8

// Mount is a dataset, or a snapshot of one, at its place in a mount namespace.
type Mount struct {
	Source     string // the dataset, or "<dataset>@<snapshot>"
	Mountpoint string // as the process sees it
	PID        int    // the lowest of those that live in the namespace
	Command    string // of that process, as its comm says
	Namespace  string // such as "mnt:[4026531841]"
}

// String is the mount in words: where, by whom.
func (m Mount) String() string {
	return fmt.Sprintf("mounted at %s by %s (pid %d, %s)", m.Mountpoint, m.Command, m.PID, m.Namespace)
}

// Find answers for each dataset where it or one of its snapshots is mounted, in
// every mount namespace that a process under proc lives in. Of a namespace it
// names one process, of a dataset at most eight mounts. Processes that end
// meanwhile, and those it may not look at, it passes over; where there is no
// proc it finds nothing. It takes a few file reads a process, and any number of
// goroutines may call it.
//
// A mount that was unmounted lazily, and of which a file is still open, has no
// place in any namespace: it is not found.
func Find(proc string, datasets ...string) map[string][]Mount {
	wanted := make(map[string]bool)
	for _, d := range datasets {
		wanted[d] = true
	}
	found := make(map[string][]Mount)
	seen := make(map[string]bool)
	for _, pid := range processes(proc) {
		dir := filepath.Join(proc, strconv.Itoa(pid))
		namespace, err := os.Readlink(filepath.Join(dir, "ns", "mnt"))
		if err != nil || seen[namespace] {
			continue
		}
		mounts, err := readMounts(filepath.Join(dir, "mountinfo"), wanted)
		if err != nil {
			continue // another process of the namespace may still be there
		}
		seen[namespace] = true
		command := commandOf(dir)
		for _, m := range mounts {
			dataset, _, _ := strings.Cut(m.Source, "@")
			if len(found[dataset]) < maxMounts {
				m.PID, m.Command, m.Namespace = pid, command, clean(namespace)
				found[dataset] = append(found[dataset], m)
			}
		}
	}
	return found
}

// processes are the IDs under proc, the lowest first.
func processes(proc string) []int {
	dir, err := os.Open(proc)
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1) // what could be read counts
	var pids []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	slices.SortFunc(pids, cmp.Compare)
	return pids
}

// commandOf is the name a process has, which it may have chosen itself.
func commandOf(dir string) string {
	text, err := readBounded(filepath.Join(dir, "comm"), 256)
	if name := clean(strings.TrimSpace(string(text))); err == nil && name != "" {
		return name
	}
	return "a process that has ended"
}

// clean keeps what others chose from doing more in a terminal than show.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || 0x80 <= r && r < 0xa0 || r == '\uFFFD' {
			return '?'
		}
		return r
	}, s)
}
