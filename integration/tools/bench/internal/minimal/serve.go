//go:build linux

package minimal

import (
	"context"
	"errors"
	"net"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/contrib/snapshotservice"
	"github.com/containerd/containerd/v2/core/snapshots"
	"google.golang.org/grpc"
)

// Serve serves a snapshotter at a unix socket until the context ends, and then closes the
// snapshotter. It calls ready once the socket is there.
func Serve(ctx context.Context, address string, sn snapshots.Snapshotter, ready func() error) (err error) {
	defer func() { err = errors.Join(err, sn.Close()) }()
	listener, err := net.Listen("unix", address)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	snapshotsapi.RegisterSnapshotsServer(server, snapshotservice.FromSnapshotter(sn))
	defer context.AfterFunc(ctx, server.Stop)()
	if err := ready(); err != nil {
		return errors.Join(err, listener.Close())
	}
	return server.Serve(listener)
}
