package holders

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// FindOpen returns at most eight processes that use a file system by a file, a
// directory or a mapping, with one use of each. It also finds users of a file system
// that was unmounted lazily. device is its st_dev.
func FindOpen(proc string, device uint64) []User {
	var users []User
	for _, pid := range processes(proc) {
		dir := filepath.Join(proc, strconv.Itoa(pid))
		use := useOf(dir, device)
		if use == "" {
			continue
		}
		users = append(users, User{PID: pid, Command: commandOf(dir), Use: clean(use)})
		if len(users) == maxMounts {
			break
		}
	}
	return users
}

// useOf returns the first use of a device by a process, or "".
func useOf(dir string, device uint64) string {
	for _, name := range []string{"cwd", "root"} {
		if deviceOf(filepath.Join(dir, name)) == device {
			return "its " + name
		}
	}
	fds, err := os.ReadDir(filepath.Join(dir, "fd"))
	if err != nil {
		fds = nil // the process has ended or may not be read
	}
	for _, fd := range fds {
		path := filepath.Join(dir, "fd", fd.Name())
		if deviceOf(path) != device {
			continue
		}
		if target, err := os.Readlink(path); err == nil {
			return "open " + target
		}
		return "open descriptor " + fd.Name()
	}
	return mappingOf(dir, device)
}

// mappingOf returns the first file of a device that a process has mapped, or "".
func mappingOf(dir string, device uint64) string {
	maps, err := readBounded(filepath.Join(dir, "maps"), maxMountinfo)
	if err != nil {
		return ""
	}
	wanted := fmt.Sprintf("%02x:%02x", unix.Major(device), unix.Minor(device))
	for line := range strings.Lines(string(maps)) {
		if words := strings.Fields(line); len(words) > 5 && words[3] == wanted {
			return "mapped " + strings.Join(words[5:], " ")
		}
	}
	return ""
}

// deviceOf returns the device of the target of a link in /proc, or 0 if it is unknown.
// It sends no request to a server of a network file system, which may never reply.
func deviceOf(link string) uint64 {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, link, unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, unix.STATX_INO, &st); err != nil {
		return 0
	}
	return unix.Mkdev(st.Dev_major, st.Dev_minor)
}
