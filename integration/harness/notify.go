package harness

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Readiness is a socket on which a program notifies that it is ready.
type Readiness struct {
	Path string
	Got  chan struct{} // closed when the program is ready
}

// NotifySocket returns a socket in dir and waits for READY=1 on it, as systemd does.
func NotifySocket(t testing.TB, dir string) Readiness {
	t.Helper()
	r := Readiness{Path: filepath.Join(dir, "notify"), Got: make(chan struct{})}
	if err := os.Remove(r.Path); err != nil {
		require.ErrorIs(t, err, os.ErrNotExist)
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: r.Path, Net: "unixgram"})
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() }) // the reader below may have closed it
	go func() {
		defer conn.Close()
		buf := make([]byte, 4096)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			if strings.Contains(string(buf[:n]), "READY=1") {
				close(r.Got)
				return
			}
		}
	}()
	return r
}
