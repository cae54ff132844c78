package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// listen creates the socket with mode 0600 in a directory that only root can use. A
// process that can write to it can read and destroy every container's files.
func listen(address string) (net.Listener, error) {
	dir := filepath.Dir(address)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("directory of the socket: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("directory of the socket: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("directory %s of the socket is open to others (mode %04o): give the socket a directory of its own, or 'chmod 0700 %s'",
			dir, info.Mode().Perm(), dir)
	}
	if err := removeStaleSocket(address); err != nil {
		return nil, err
	}
	// A umask and not a chmod, so that the socket never has another mode.
	old := syscall.Umask(0o177)
	defer syscall.Umask(old)
	l, err := net.Listen("unix", address)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	return l, nil
}

// removeStaleSocket removes the socket of a daemon that was killed. It returns an error
// if another file has that name or a process serves it.
func removeStaleSocket(address string) error {
	info, err := os.Lstat(address)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s exists and is not a socket: remove it or choose another address", address)
	}
	if conn, err := net.Dial("unix", address); err == nil {
		return errors.Join(fmt.Errorf("another process serves %s: stop it or choose another address", address), conn.Close())
	}
	return os.Remove(address)
}
