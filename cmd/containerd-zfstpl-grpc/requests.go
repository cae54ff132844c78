package main

import (
	"context"

	diffapi "github.com/containerd/containerd/api/services/diff/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// layerService is containerd's own service of a differ. That one takes a request without
// a layer for a program's fault and ends the process.
type layerService struct{ diffapi.DiffServer }

// Apply refuses a request without a layer.
func (s layerService) Apply(ctx context.Context, r *diffapi.ApplyRequest) (*diffapi.ApplyResponse, error) {
	if r.GetDiff() == nil {
		return nil, status.Error(codes.InvalidArgument, "apply: the request names no layer")
	}
	return s.DiffServer.Apply(ctx, r)
}

// Update refuses a request without a snapshot, as layerService does one without a layer.
func (s snapshotService) Update(ctx context.Context, r *snapshotsapi.UpdateSnapshotRequest) (*snapshotsapi.UpdateSnapshotResponse, error) {
	if r.GetInfo() == nil {
		return nil, status.Error(codes.InvalidArgument, "update: the request names no snapshot")
	}
	return s.SnapshotsServer.Update(ctx, r)
}
