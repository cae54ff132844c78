package main

import (
	"context"

	diffapi "github.com/containerd/containerd/api/services/diff/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/contrib/snapshotservice"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/proxy"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// snapshotService is containerd's own service of a snapshotter with another List.
//
// containerd's List puts a hundred snapshots into a message. A message is limited to 16
// MiB on both sides, and labels are the annotations of any image: with enough of them the
// list never arrives, and containerd, whose garbage collection begins with it, never
// removes anything again.
type snapshotService struct {
	snapshotsapi.SnapshotsServer
	sn snapshots.Snapshotter
}

func newSnapshotService(sn snapshots.Snapshotter) snapshotService {
	return snapshotService{snapshotservice.FromSnapshotter(sn), sn}
}

const (
	// listSize is the size in bytes from which a message is sent. One record is a
	// fraction of that.
	listSize = 1 << 20
	// listEntries is the maximum number of snapshots in a message, as in containerd.
	listEntries = 100
)

// List sends the snapshots. It returns gRPC's errors, which containerd's List does not.
func (s snapshotService) List(r *snapshotsapi.ListSnapshotsRequest, stream snapshotsapi.Snapshots_ListServer) error {
	var block snapshotsapi.ListSnapshotsResponse
	size := 0
	send := func() error {
		err := stream.Send(&block)
		block.Info, size = nil, 0
		return err
	}
	err := s.sn.Walk(stream.Context(), func(_ context.Context, info snapshots.Info) error {
		i := proxy.InfoToProto(info)
		block.Info = append(block.Info, i)
		if size += proto.Size(i); size < listSize && len(block.Info) < listEntries {
			return nil
		}
		return send()
	}, r.GetFilters()...)
	if err == nil && len(block.Info) > 0 {
		err = send()
	}
	return errgrpc.ToGRPC(err)
}

// Update returns InvalidArgument for a request without a snapshot, on which containerd's
// service panics too.
func (s snapshotService) Update(ctx context.Context, r *snapshotsapi.UpdateSnapshotRequest) (*snapshotsapi.UpdateSnapshotResponse, error) {
	if r.GetInfo() == nil {
		return nil, status.Error(codes.InvalidArgument, "update: the request names no snapshot")
	}
	return s.SnapshotsServer.Update(ctx, r)
}

// layerService is containerd's own diff service with checks of requests: containerd's
// Apply panics on a request without a layer.
type layerService struct{ diffapi.DiffServer }

// Apply returns InvalidArgument for a request without a layer.
func (s layerService) Apply(ctx context.Context, r *diffapi.ApplyRequest) (*diffapi.ApplyResponse, error) {
	if r.GetDiff() == nil {
		return nil, status.Error(codes.InvalidArgument, "apply: the request names no layer")
	}
	return s.DiffServer.Apply(ctx, r)
}
