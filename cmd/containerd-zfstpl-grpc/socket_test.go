package main

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// The tests of this file call listen, which changes the umask of the process: they do not
// run in parallel.

func TestSocketIsOpenToRootOnly(t *testing.T) {
	address := filepath.Join(filepath.Dir(socket(t)), "new", "dir", "s.sock")
	old := unixUmask(t, 0)
	defer unixUmask(t, old)
	l, err := listen(address)
	require.NoError(t, err)
	defer l.Close()
	info, err := os.Lstat(address)
	require.NoError(t, err)
	assert.Equal(t, os.ModeSocket|0o600, info.Mode())
	for _, dir := range []string{filepath.Dir(address), filepath.Dir(filepath.Dir(address))} {
		info, err = os.Stat(dir)
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o700), info.Mode().Perm(), dir)
	}
	assert.Equal(t, 0, unixUmask(t, 0), "the umask is restored")

	_, err = listen(address)
	require.ErrorContains(t, err, "another process serves", "a socket in use is not replaced")
	conn, err := net.Dial("unix", address)
	require.NoError(t, err, "it is still served")
	conn.Close()
}

// The socket of a daemon that was killed is in the way, and no process serves it.
func TestStaleSocketIsRemoved(t *testing.T) {
	address := socket(t)
	stale, err := net.Listen("unix", address)
	require.NoError(t, err)
	stale.(*net.UnixListener).SetUnlinkOnClose(false)
	require.NoError(t, stale.Close())
	require.FileExists(t, address)
	l, err := listen(address)
	require.NoError(t, err)
	conn, err := net.Dial("unix", address)
	require.NoError(t, err)
	conn.Close()
	require.NoError(t, l.Close())
	assert.NoFileExists(t, address, "the socket is removed")
}

func TestFileThatIsNoSocketIsKept(t *testing.T) {
	address := socket(t)
	dir := filepath.Dir(address)
	file, folder, link, dangling := filepath.Join(dir, "file"), filepath.Join(dir, "folder"), filepath.Join(dir, "link"), filepath.Join(dir, "dangling")
	require.NoError(t, os.WriteFile(file, []byte("precious"), 0o600))
	require.NoError(t, os.Mkdir(folder, 0o700))
	require.NoError(t, os.Symlink(file, link))
	require.NoError(t, os.Symlink("/nowhere", dangling))
	for _, path := range []string{file, folder, link, dangling} {
		_, err := listen(path)
		require.ErrorContains(t, err, "not a socket", path)
		_, err = os.Lstat(path)
		require.NoError(t, err)
	}
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	assert.Equal(t, "precious", string(text))
}

// Others could put a socket of their own into a directory that they can write to.
func TestDirectoryOpenToOthersIsRefused(t *testing.T) {
	address := socket(t)
	dir := filepath.Dir(address)
	for _, mode := range []os.FileMode{0o755, 0o701, 0o710, 0o770, 0o777 | os.ModeSticky} {
		require.NoError(t, os.Chmod(dir, mode))
		_, err := listen(address)
		require.ErrorContains(t, err, "open to others", mode)
		assert.ErrorContains(t, err, "chmod 0700", mode)
		assert.NoFileExists(t, address)
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	_, err := listen(filepath.Join(dir, "file", "s.sock"))
	assert.ErrorContains(t, err, "directory of the socket")
}

func TestLongAddressIsRefused(t *testing.T) {
	dir := filepath.Dir(socket(t))
	_, err := listen(filepath.Join(dir, strings.Repeat("x", 120)))
	assert.ErrorContains(t, err, "socket")
}

// A daemon that is stopped during a call completes the call and ends without an error.
func TestServeCompletesRunningCalls(t *testing.T) {
	address := socket(t)
	sn := &stub{hold: make(chan struct{}), held: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- serve(ctx, address, sn, nil, nil) }()
	// The socket's file exists a moment before the daemon listens.
	eventually(t, "a connection", func() bool {
		conn, err := net.Dial("unix", address)
		return err == nil && conn.Close() == nil
	})
	conn := dial(t, address)
	reply := make(chan error, 1)
	go func() {
		_, err := client(conn).Prepare(t.Context(), "web", "")
		reply <- err
	}()
	select {
	case <-sn.held:
	case err := <-reply:
		require.Fail(t, "the call ended", "%v", err)
	}
	cancel()
	eventually(t, "no new connections", func() bool {
		conn, err := net.Dial("unix", address)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	require.Empty(t, served, "the daemon waits for the call")
	require.Empty(t, reply)
	close(sn.hold)
	require.NoError(t, <-reply)
	require.NoError(t, <-served)
	assert.NoFileExists(t, address)
}

// A cleanup and a client that watches the health do not delay the end of a daemon, which
// can be started again.
func TestServeStopsCleanupsAndWatchers(t *testing.T) {
	address := socket(t)
	for range 2 {
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error, 1)
		sn := &stub{}
		go func() { served <- serve(ctx, address, sn, nil, nil) }()
		eventually(t, "a reply", func() bool {
			_, err := grpc_health_v1.NewHealthClient(dial(t, address)).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
			return err == nil
		})
		watch, err := grpc_health_v1.NewHealthClient(dial(t, address)).Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{})
		require.NoError(t, err)
		_, err = watch.Recv()
		require.NoError(t, err)
		cancel()
		select {
		case err := <-served:
			require.NoError(t, err)
		case <-time.After(drainTime / 2):
			require.Fail(t, "the daemon did not end")
		}
		assert.True(t, sn.stopped)
	}
	require.NoError(t, os.WriteFile(address, nil, 0o600))
	assert.ErrorContains(t, serve(t.Context(), address, &stub{}, nil, nil), "not a socket")
}
