package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// identify returns the process at the other end of a connection. Fields that cannot be
// read stay empty.
func identify(conn net.Conn) *caller {
	socket, ok := conn.(*net.UnixConn)
	if !ok {
		return &caller{}
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return &caller{}
	}
	c := &caller{}
	if err := raw.Control(func(fd uintptr) { c = identifyPeer(int(fd)) }); err != nil {
		return &caller{}
	}
	return c
}

func identifyPeer(fd int) *caller {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil || cred.Pid <= 0 {
		return &caller{} // it is in a PID namespace that is not visible here
	}
	process, err := os.FindProcess(int(cred.Pid))
	if err != nil {
		return &caller{}
	}
	proc := fmt.Sprintf("/proc/%d", cred.Pid)
	c := &caller{pid: int(cred.Pid), name: programName(proc), mount: mountNamespace(proc), process: process}
	c.pidns, c.innerPID = pidNamespace(proc)
	if !c.alive() || !peerLives(fd) {
		return &caller{} // the PID may be another process's by now
	}
	return c
}

// peerLives reports whether the process that made a connection still runs. It returns
// true on kernels before 6.5, which do not report that.
func peerLives(fd int) bool {
	pidfd, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	if errors.Is(err, unix.ENOPROTOOPT) {
		return true
	}
	if err != nil {
		return false
	}
	defer unix.Close(pidfd)
	ended := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(ended, 0)
	return err == nil && n == 0
}

// mountNamespace returns the mount namespace of a process, or "" if it cannot be read.
func mountNamespace(proc string) string {
	name, err := os.Readlink(proc + "/ns/mnt")
	if err != nil {
		return ""
	}
	return name
}

var (
	namespaceNumber = regexp.MustCompile(`^pid:\[(\d+)\]$`)
	numbersOfPID    = regexp.MustCompile(`(?m)^NSpid:\s+(.*)$`)
)

// pidNamespace returns the PID namespace of a process and its PID there, or zeros if they
// cannot be read.
func pidNamespace(proc string) (namespace uint64, pid int) {
	name, err := os.Readlink(proc + "/ns/pid")
	if err != nil {
		return 0, 0
	}
	status, err := os.ReadFile(proc + "/status")
	if err != nil {
		return 0, 0
	}
	number, pids := namespaceNumber.FindStringSubmatch(name), numbersOfPID.FindSubmatch(status)
	if number == nil || pids == nil {
		return 0, 0
	}
	// The last one is that of the innermost namespace.
	each := strings.Fields(string(pids[1]))
	if len(each) == 0 {
		return 0, 0
	}
	if pid, err = strconv.Atoi(each[len(each)-1]); err != nil {
		return 0, 0
	}
	namespace, err = strconv.ParseUint(number[1], 10, 64)
	if err != nil {
		return 0, 0
	}
	return namespace, pid
}
