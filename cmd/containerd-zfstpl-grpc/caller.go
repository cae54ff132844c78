package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// caller is the process at the other end of a connection, as it was when it connected.
// It implements credentials.AuthInfo.
type caller struct {
	pid   int    // in the daemon's PID namespace; 0 identifies nothing
	name  string // of its program
	mount string // its mount namespace; "" where that cannot be read

	pidns    uint64 // its PID namespace; 0 where that cannot be read
	innerPID int    // its PID there

	process *os.Process // keeps its identity: another process with its PID is another one
}

// AuthType returns the kind of credentials.
func (*caller) AuthType() string { return "unix" }

// String returns the caller as messages name it.
func (c *caller) String() string {
	if c.pid == 0 {
		return "a process that cannot be identified"
	}
	return fmt.Sprintf("process %d (%s)", c.pid, c.name)
}

// root returns a path to the caller's root directory in its mount namespace, "" if that
// cannot be read.
func (c *caller) root() string {
	if c.pid == 0 || c.mount == "" {
		return ""
	}
	return fmt.Sprintf("/proc/%d/root", c.pid)
}

// alive reports whether the caller's process still runs.
func (c *caller) alive() bool {
	return c.process != nil && !errors.Is(c.process.Signal(syscall.Signal(0)), os.ErrProcessDone)
}

// callerOf returns the caller that a request came from. It is never nil.
func callerOf(ctx context.Context) *caller {
	if p, ok := peer.FromContext(ctx); ok {
		if c, ok := p.AuthInfo.(*caller); ok {
			return c
		}
	}
	return &caller{}
}

// unixCredentials are the transport credentials of a unix socket: nothing is sent, and
// the kernel reports which process has connected. A connection is never refused: each
// request is admitted on its own.
type unixCredentials struct {
	credentials.TransportCredentials
}

// ServerHandshake returns the connection and its caller.
func (unixCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return conn, identify(conn), nil
}

// Clone returns the same credentials: they have no state.
func (c unixCredentials) Clone() credentials.TransportCredentials { return c }

// programName returns the name of a process's program, or "unknown".
func programName(proc string) string {
	text, err := os.ReadFile(proc + "/comm")
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(text))
}

// mountNamespace returns the mount namespace of a process, or "" if it cannot be read.
func mountNamespace(proc string) string {
	name, _ := os.Readlink(proc + "/ns/mnt")
	return name
}

var (
	namespaceNumber = regexp.MustCompile(`^pid:\[(\d+)\]$`)
	innermostPID    = regexp.MustCompile(`(?m)^NSpid:.*\t(\d+)$`) // the last one
)

// pidNamespace returns the PID namespace of a process and its PID there, or zeros if they
// cannot be read.
func pidNamespace(proc string) (namespace uint64, pid int) {
	name, _ := os.Readlink(proc + "/ns/pid") // what cannot be read does not match
	status, _ := os.ReadFile(proc + "/status")
	number, inner := namespaceNumber.FindStringSubmatch(name), innermostPID.FindSubmatch(status)
	if number == nil || inner == nil {
		return 0, 0
	}
	namespace, err := strconv.ParseUint(number[1], 10, 64)
	if err != nil {
		return 0, 0
	}
	if pid, err = strconv.Atoi(string(inner[1])); err != nil {
		return 0, 0
	}
	return namespace, pid
}
