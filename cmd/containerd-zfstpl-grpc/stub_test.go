package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/proxy"
	"github.com/containerd/containerd/v2/pkg/filters"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/zfstpl/zfstpl/snapshotter"
)

// stub is a snapshotter with a few snapshots whose methods return fail. It is a double of what
// the server serves, not of a pool: the tests of the server need no snapshot to exist.
type stub struct {
	mu    sync.Mutex
	fail  error
	noLog error
	infos []snapshots.Info
	// If hold is not nil, Prepare closes held and waits until hold is closed.
	hold, held chan struct{}
	cleaned    int
	stopped    bool // StopCleanup was called
}

func (s *stub) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fail
}

func (s *stub) failWith(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = err
}

func (s *stub) Stat(context.Context, string) (snapshots.Info, error) {
	return snapshots.Info{Name: "web"}, s.failure()
}

func (s *stub) Update(_ context.Context, info snapshots.Info, _ ...string) (snapshots.Info, error) {
	return info, s.failure()
}

func (s *stub) Usage(context.Context, string) (snapshots.Usage, error) {
	return snapshots.Usage{Size: 1, Inodes: 2}, s.failure()
}

func (s *stub) Mounts(context.Context, string) ([]mount.Mount, error) {
	return []mount.Mount{{Type: "zfs", Source: "tank/x@extracted", Options: []string{"ro"}}}, s.failure()
}

func (s *stub) Prepare(context.Context, string, string, ...snapshots.Opt) ([]mount.Mount, error) {
	if s.hold != nil {
		close(s.held)
		<-s.hold
	}
	return []mount.Mount{{Type: "zfs", Source: "tank/x"}}, s.failure()
}

func (s *stub) View(ctx context.Context, key, _ string, _ ...snapshots.Opt) ([]mount.Mount, error) {
	return s.Mounts(ctx, key)
}

func (s *stub) Commit(context.Context, string, string, ...snapshots.Opt) error { return s.failure() }
func (s *stub) Remove(context.Context, string) error                           { return s.failure() }
func (s *stub) Close() error                                                   { return nil }

func (s *stub) Cleanup(context.Context) error {
	s.mu.Lock()
	s.cleaned++
	s.mu.Unlock()
	return s.failure()
}

func (s *stub) Walk(ctx context.Context, fn snapshots.WalkFunc, filter ...string) error {
	if _, err := filters.ParseAll(filter...); err != nil {
		return err
	}
	for _, info := range s.infos {
		if err := fn(ctx, info); err != nil {
			return err
		}
	}
	return s.failure()
}

// dial returns a connection to the socket.
func dial(t *testing.T, address string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

// client returns containerd's proxy of the snapshotter at that connection.
func client(conn *grpc.ClientConn) snapshots.Snapshotter {
	return proxy.NewSnapshotter(snapshotsapi.NewSnapshotsClient(conn), "zfstpl")
}

// socket returns an address in a directory of its own, short enough for a socket.
func socket(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "zfstpl-")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "s.sock")
}

// eventually waits until ok returns true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(fmt.Sprint("timed out waiting for ", what))
		}
	}
}

// unixUmask sets the umask and returns the one before.
func unixUmask(t *testing.T, mask int) int {
	t.Helper()
	return syscall.Umask(mask)
}

func (s *stub) Clean(context.Context, func(snapshotter.CleanupProgress)) error { return s.failure() }

func (s *stub) StopCleanup() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	return true
}

func (s *stub) Healthy(context.Context) error { return s.failure() }

func (s *stub) LogError() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.noLog
}

func (s *stub) Dataset() string { return "tank/zfstpl" }
