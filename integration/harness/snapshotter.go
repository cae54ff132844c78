package harness

import (
	"context"
	"os"
	"testing"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/proxy"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"github.com/zfstpl/zfstpl/integration/testpool"
	"github.com/zfstpl/zfstpl/snapshotter"
)

// NewSnapshotter returns a snapshotter of this process, which is closed when t ends.
func NewSnapshotter(t testing.TB, base *testpool.Base, settings ...func(*snapshotter.Config)) *snapshotter.Snapshotter {
	t.Helper()
	root, err := os.OpenRoot(base.Root)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, root.Close()) })
	config := snapshotter.Config{Base: base.Base, Root: root}
	for _, set := range settings {
		set(&config)
	}
	sn, err := snapshotter.New(context.Background(), base.Client, config)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, sn.Close()) })
	return sn
}

// Proxy is a snapshotter over a connection. Its methods and its Cleanup are those of
// containerd's proxy.
type Proxy struct{ snapshots.Snapshotter }

// NewProxy returns the snapshotter that a daemon or a containerd serves on a connection.
func NewProxy(conn grpc.ClientConnInterface) Proxy {
	return Proxy{proxy.NewSnapshotter(snapshotsapi.NewSnapshotsClient(conn), "zfstpl")}
}

// Cleanup follows containerd's proxy, which has it too.
func (p Proxy) Cleanup(ctx context.Context) error {
	return p.Snapshotter.(snapshots.Cleaner).Cleanup(ctx)
}
