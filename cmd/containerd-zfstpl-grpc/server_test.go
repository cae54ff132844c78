package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// running serves sn on a socket of its own. It does not call listen, which changes the
// umask of the whole process.
func running(t *testing.T, sn service) (address string) {
	t.Helper()
	address = socket(t)
	listener, err := net.Listen("unix", address)
	require.NoError(t, err)
	server, _ := newServer(sn, nil, nil)
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		assert.NoError(t, <-done)
	})
	return address
}

// containerd acts on the kind of an error.
func TestErrorKindsReachTheClient(t *testing.T) {
	t.Parallel()
	sn := &stub{}
	conn := dial(t, running(t, sn))
	c, ctx := client(conn), t.Context()
	calls := map[string]func() error{
		"stat":    func() error { _, err := c.Stat(ctx, "x"); return err },
		"update":  func() error { _, err := c.Update(ctx, snapshots.Info{Name: "x"}); return err },
		"usage":   func() error { _, err := c.Usage(ctx, "x"); return err },
		"mounts":  func() error { _, err := c.Mounts(ctx, "x"); return err },
		"prepare": func() error { _, err := c.Prepare(ctx, "x", ""); return err },
		"view":    func() error { _, err := c.View(ctx, "x", ""); return err },
		"commit":  func() error { return c.Commit(ctx, "x", "y") },
		"remove":  func() error { return c.Remove(ctx, "x") },
		"walk":    func() error { return c.Walk(ctx, func(context.Context, snapshots.Info) error { return nil }) },
		"cleanup": func() error { return c.(snapshots.Cleaner).Cleanup(ctx) },
	}
	for _, kind := range []error{
		errdefs.ErrNotFound, errdefs.ErrAlreadyExists, errdefs.ErrFailedPrecondition, errdefs.ErrInvalidArgument,
		errdefs.ErrResourceExhausted, errdefs.ErrPermissionDenied, errdefs.ErrUnavailable, errdefs.ErrInternal,
	} {
		sn.failWith(fmt.Errorf("snapshot \"x\": %w", kind))
		for name, call := range calls {
			err := call()
			assert.ErrorIs(t, err, kind, name)
			assert.ErrorContains(t, err, `snapshot "x"`, name)
		}
	}
	sn.failWith(nil)
	for name, call := range calls {
		assert.NoError(t, call(), name)
	}
	assert.NotZero(t, sn.cleaned)
}

// containerd's service returns Walk's errors unconverted, which would be Unknown.
func TestWalkWithInvalidFilterIsInvalidArgument(t *testing.T) {
	t.Parallel()
	conn := dial(t, running(t, &stub{}))
	err := client(conn).Walk(t.Context(), func(context.Context, snapshots.Info) error { return nil }, "name==")
	require.ErrorIs(t, err, errdefs.ErrInvalidArgument)

	stream, err := snapshotsapi.NewSnapshotsClient(conn).List(t.Context(), &snapshotsapi.ListSnapshotsRequest{Filters: []string{"name=="}})
	require.NoError(t, err)
	_, err = stream.Recv()
	assert.Equal(t, codes.InvalidArgument, status.Code(err))
}

func TestWalkReturnsAllSnapshots(t *testing.T) {
	t.Parallel()
	sn := &stub{}
	for i := range 250 { // more than one message
		sn.infos = append(sn.infos, snapshots.Info{Name: fmt.Sprint(i), Kind: snapshots.KindCommitted, Labels: map[string]string{"a": "b"}})
	}
	c := client(dial(t, running(t, sn)))
	n := 0
	require.NoError(t, c.Walk(t.Context(), func(_ context.Context, info snapshots.Info) error {
		assert.Equal(t, fmt.Sprint(n), info.Name)
		n++
		return nil
	}))
	assert.Equal(t, 250, n)
	stop := errors.New("stop")
	assert.ErrorIs(t, c.Walk(t.Context(), func(context.Context, snapshots.Info) error { return stop }), stop)
	mounts, err := c.View(t.Context(), "x", "")
	require.NoError(t, err)
	assert.Equal(t, []string{"ro"}, mounts[0].Options)
}

// Labels come from images: no number of them keeps the list from containerd.
func TestWalkReturnsLongLabels(t *testing.T) {
	t.Parallel()
	sn := &stub{}
	long := strings.Repeat("x", 200<<10) // about the limit of a record
	for i := range 110 {
		sn.infos = append(sn.infos, snapshots.Info{Name: fmt.Sprint(i), Labels: map[string]string{"a": long}})
	}
	n := 0
	require.NoError(t, client(dial(t, running(t, sn))).Walk(t.Context(), func(_ context.Context, info snapshots.Info) error {
		assert.Len(t, info.Labels["a"], len(long))
		n++
		return nil
	}))
	assert.Equal(t, 110, n)
}

func TestHealthIsServing(t *testing.T) {
	t.Parallel()
	health := grpc_health_v1.NewHealthClient(dial(t, running(t, &stub{})))
	for _, service := range []string{"", "containerd.services.snapshots.v1.Snapshots"} {
		reply, err := health.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: service})
		require.NoError(t, err, service)
		assert.Equal(t, grpc_health_v1.HealthCheckResponse_SERVING, reply.Status, service)
	}
	_, err := health.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: "none"})
	assert.Equal(t, codes.NotFound, status.Code(err))
}
