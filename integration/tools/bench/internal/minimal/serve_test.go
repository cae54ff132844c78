//go:build linux

package minimal

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/proxy"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// serve returns a client of a snapshotter that is served.
func serve(t *testing.T, sn snapshots.Snapshotter) snapshots.Snapshotter {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	address := filepath.Join(t.TempDir(), "s")
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- Serve(ctx, address, sn, func() error { close(ready); return nil })
	}()
	<-ready
	conn, err := grpc.NewClient("unix://"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, conn.Close())
		cancel()
		require.NoError(t, <-ended)
	})
	return proxy.NewSnapshotter(snapshotsapi.NewSnapshotsClient(conn), "minimal")
}

func TestEveryCallOfTheEmptySnapshotterSucceeds(t *testing.T) {
	ctx := namespaces.WithNamespace(t.Context(), "test")
	sn := serve(t, Empty{Dir: "/dir"})
	mounts, err := sn.Prepare(ctx, "a", "")
	require.NoError(t, err)
	assert.Equal(t, []mount.Mount{{Type: "bind", Source: "/dir", Options: []string{"rbind", "rw"}}}, mounts)
	mounts, err = sn.View(ctx, "v", "a")
	require.NoError(t, err)
	assert.Equal(t, []string{"rbind", "ro"}, mounts[0].Options)
	_, err = sn.Mounts(ctx, "a")
	require.NoError(t, err)
	_, err = sn.Stat(ctx, "a")
	require.NoError(t, err)
	_, err = sn.Usage(ctx, "a")
	require.NoError(t, err)
	require.NoError(t, sn.Commit(ctx, "b", "a"))
	require.NoError(t, sn.Remove(ctx, "b"))
	require.NoError(t, sn.Walk(ctx, func(context.Context, snapshots.Info) error {
		return assert.AnError // there is none
	}))
}

func TestTheLoggingSnapshotterAppendsOneRecordForEachChange(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	log, err := OpenLog(path)
	require.NoError(t, err)
	ctx := namespaces.WithNamespace(t.Context(), "test")
	sn := serve(t, Logging{Empty{Dir: "/dir"}, log})
	for i, change := range []func() error{
		func() error { _, err := sn.Prepare(ctx, "a", ""); return err },
		func() error { _, err := sn.View(ctx, "v", ""); return err },
		func() error { return sn.Commit(ctx, "b", "a") },
	} {
		require.NoError(t, change())
		content, err := os.ReadFile(path)
		require.NoError(t, err)
		assert.Len(t, content, 400*(i+1))
	}
	_, err = sn.Mounts(ctx, "a")
	require.NoError(t, err)
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Len(t, content, 3*400)
}
