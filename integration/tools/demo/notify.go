//go:build linux

package main

import (
	"fmt"
	"net"
	"slices"
	"strings"
)

// readiness receives what sd_notify(3) sends, as systemd does for a unit of
// Type=notify: the daemon itself says when it is ready, no program has to guess.
type readiness struct {
	path string
	conn *net.UnixConn
	// said gets one value: nil for ready.
	said chan error
}

func listenReady(path string) (*readiness, error) {
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	r := &readiness{path: path, conn: conn, said: make(chan error, 1)}
	go r.listen()
	return r, nil
}

func (r *readiness) listen() {
	buffer := make([]byte, 4096)
	for {
		n, err := r.conn.Read(buffer)
		if err != nil {
			r.said <- fmt.Errorf("listening for readiness: %w", err)
			return
		}
		if slices.Contains(strings.Split(string(buffer[:n]), "\n"), "READY=1") {
			r.said <- nil
			return
		}
	}
}

func (r *readiness) close() { r.conn.Close() }
