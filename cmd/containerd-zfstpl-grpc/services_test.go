package main

import (
	"testing"

	diffapi "github.com/containerd/containerd/api/services/diff/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A request without its layer or snapshot is an error and does not end the daemon.
func TestIncompleteRequestsAreInvalidArgument(t *testing.T) {
	t.Parallel()
	ctx, sn := t.Context(), snapshotService{sn: &stub{}}
	_, err := sn.Update(ctx, &snapshotsapi.UpdateSnapshotRequest{})
	assert.Equal(t, codes.InvalidArgument, status.Code(err))
	_, err = layerService{}.Apply(ctx, &diffapi.ApplyRequest{})
	assert.Equal(t, codes.InvalidArgument, status.Code(err))

	conn := dial(t, running(t, &stub{}))
	c := snapshotsapi.NewSnapshotsClient(conn)
	_, err = c.Update(ctx, &snapshotsapi.UpdateSnapshotRequest{Snapshotter: "zfstpl"})
	assert.Equal(t, codes.InvalidArgument, status.Code(err))
	_, err = c.Stat(ctx, &snapshotsapi.StatSnapshotRequest{})
	require.NoError(t, err, "the daemon still runs")
	for what, call := range map[string]func() error{
		"prepare": func() error { _, err := c.Prepare(ctx, &snapshotsapi.PrepareSnapshotRequest{}); return err },
		"view":    func() error { _, err := c.View(ctx, &snapshotsapi.ViewSnapshotRequest{}); return err },
		"mounts":  func() error { _, err := c.Mounts(ctx, &snapshotsapi.MountsRequest{}); return err },
		"commit":  func() error { _, err := c.Commit(ctx, &snapshotsapi.CommitSnapshotRequest{}); return err },
		"remove":  func() error { _, err := c.Remove(ctx, &snapshotsapi.RemoveSnapshotRequest{}); return err },
		"usage":   func() error { _, err := c.Usage(ctx, &snapshotsapi.UsageRequest{}); return err },
		"cleanup": func() error { _, err := c.Cleanup(ctx, &snapshotsapi.CleanupRequest{}); return err },
	} {
		assert.NoError(t, call(), what)
	}
}
