// Package holders finds the processes that have a ZFS dataset mounted or open, so
// that a log message about a busy dataset can name them.
//
// It reads /proc and changes nothing. The result is a snapshot in time:
// processes start and end meanwhile.
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

// Proc is the mountpoint of Linux's proc file system.
const Proc = "/proc"

// maxMounts bounds the result for one dataset.
const maxMounts = 8

// Mount is a mount of a dataset, or of a snapshot of one, in a mount namespace.
type Mount struct {
	Source     string // the dataset, or "<dataset>@<snapshot>"
	Mountpoint string // as the process sees it
	PID        int    // the lowest PID of the processes in the namespace
	Command    string // the comm of that process
	Namespace  string // such as "mnt:[4026531841]"
}

// String returns the mount in words, with its place and process.
func (m Mount) String() string {
	return fmt.Sprintf("mounted at %s by %s (pid %d, %s)", m.Mountpoint, m.Command, m.PID, m.Namespace)
}

// User is a process that uses a file system.
type User struct {
	PID     int
	Command string // its comm
	Use     string // such as "open /run/x/file (deleted)"
}

// String returns the user in words.
func (u User) String() string { return fmt.Sprintf("%s (pid %d): %s", u.Command, u.PID, u.Use) }

// Find returns the mounts of datasets and their snapshots, by dataset, in the mount
// namespaces of all processes under proc. It names one process for each namespace, and
// at most eight mounts for each dataset. It skips processes that end meanwhile or that
// it may not read; without proc it finds nothing. It reads a few files for each
// process. It is safe for concurrent use.
//
// Find does not find a mount that was unmounted lazily while a file was open, because
// it is in no namespace; see FindOpen.
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
		mountinfo, err := readBounded(filepath.Join(dir, "mountinfo"), maxMountinfo)
		if err != nil {
			continue // another process of the namespace may still be there
		}
		seen[namespace] = true
		command := commandOf(dir)
		for _, m := range parseMounts(mountinfo, wanted) {
			dataset, _, _ := strings.Cut(m.Source, "@")
			if len(found[dataset]) < maxMounts {
				m.PID, m.Command, m.Namespace = pid, command, clean(namespace)
				found[dataset] = append(found[dataset], m)
			}
		}
	}
	return found
}

// processes returns the PIDs under proc in ascending order.
func processes(proc string) []int {
	dir, err := os.Open(proc)
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1) // after an error, the names that were read are used
	var pids []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	slices.SortFunc(pids, cmp.Compare)
	return pids
}

// commandOf returns the name of a process, which it may have set itself.
func commandOf(dir string) string {
	text, err := readBounded(filepath.Join(dir, "comm"), 256)
	if name := clean(strings.TrimSpace(string(text))); err == nil && name != "" {
		return name
	}
	return "a process that has ended"
}

// clean replaces control characters in text that other programs chose, so that it is
// safe to print to a terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || 0x80 <= r && r < 0xa0 || r == '\uFFFD' {
			return '?'
		}
		return r
	}, s)
}
