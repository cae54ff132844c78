package holders

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// FindOpen returns processes that use a file system by a file, a directory or a
// mapping, at most eight and one use of each. It finds those also where the file
// system is mounted nowhere any more, because it was unmounted lazily. device is its
// st_dev.
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

// useOf returns the first thing by which a process uses a device, or "".
func useOf(dir string, device uint64) string {
	for _, name := range []string{"cwd", "root"} {
		if deviceOf(filepath.Join(dir, name)) == device {
			return "its " + name
		}
	}
	fds, err := os.ReadDir(filepath.Join(dir, "fd"))
	if err != nil {
		fds = nil // it has ended, or may not be looked at
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

// deviceOf returns the device of what a link of /proc stands for, 0 where that
// cannot be told. It asks no server: one that is gone would never reply.
func deviceOf(link string) uint64 {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, link, unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, unix.STATX_INO, &st); err != nil {
		return 0
	}
	return unix.Mkdev(st.Dev_major, st.Dev_minor)
}
