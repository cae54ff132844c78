package main

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// identify returns the process at the other end of a connection. Fields that cannot be
// read stay empty.
func identify(conn net.Conn) *caller {
	c := &caller{}
	if socket, ok := conn.(*net.UnixConn); ok {
		if raw, err := socket.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) { c = identifyPeer(int(fd)) }) // it fails on a closed socket
		}
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
