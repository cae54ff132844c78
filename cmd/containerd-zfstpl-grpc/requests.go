package main

import (
	"context"

	diffapi "github.com/containerd/containerd/api/services/diff/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

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

// Update returns InvalidArgument for a request without a snapshot, on which containerd's
// service panics too.
func (s snapshotService) Update(ctx context.Context, r *snapshotsapi.UpdateSnapshotRequest) (*snapshotsapi.UpdateSnapshotResponse, error) {
	if r.GetInfo() == nil {
		return nil, status.Error(codes.InvalidArgument, "update: the request names no snapshot")
	}
	return s.SnapshotsServer.Update(ctx, r)
}
