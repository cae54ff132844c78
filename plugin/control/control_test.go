package control_test

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/zfstpl/zfstpl/plugin/control"
	"github.com/zfstpl/zfstpl/snapshotter"
)

// cleaner calls clean, and closes stopped when it is stopped.
type cleaner struct {
	clean   func(ctx context.Context, report func(snapshotter.CleanupProgress)) error
	stopped chan struct{}
}

func (c *cleaner) Clean(ctx context.Context, report func(snapshotter.CleanupProgress)) error {
	return c.clean(ctx, report)
}

func (c *cleaner) StopCleanup() bool { close(c.stopped); return true }

func serve(t *testing.T, c control.Cleaner) *grpc.ClientConn {
	t.Helper()
	address := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", address)
	require.NoError(t, err)
	server := grpc.NewServer()
	control.Register(server, c, "tank/x")
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	conn, err := grpc.NewClient("unix://"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() {
		assert.NoError(t, conn.Close())
		server.Stop()
		assert.NoError(t, <-done)
	})
	return conn
}

func TestCleanReportsProgress(t *testing.T) {
	t.Parallel()
	steps := []snapshotter.CleanupProgress{{Of: 70}, {Looked: 50, Of: 70, Destroyed: 49}, {Looked: 70, Of: 70, Destroyed: 69}}
	conn := serve(t, &cleaner{clean: func(_ context.Context, report func(snapshotter.CleanupProgress)) error {
		for _, p := range steps {
			report(p)
		}
		return nil
	}})
	var received []snapshotter.CleanupProgress
	require.NoError(t, control.Clean(t.Context(), conn, "tank/x", func(p snapshotter.CleanupProgress) { received = append(received, p) }))
	require.NotEmpty(t, received)
	assert.Subset(t, steps, received, "some may be skipped")
	assert.Equal(t, steps[2], received[len(received)-1], "the last one is never skipped")
	require.NoError(t, control.Clean(t.Context(), conn, "tank/x", nil), "report may be nil")
}

// A client that does not read, such as a command after Ctrl-Z, does not delay the
// cleanup.
func TestCleanDoesNotWaitForASlowCaller(t *testing.T) {
	t.Parallel()
	done := make(chan struct{})
	conn := serve(t, &cleaner{clean: func(_ context.Context, report func(snapshotter.CleanupProgress)) error {
		for i := range 200_000 { // more than the buffers of the connection hold
			report(snapshotter.CleanupProgress{Looked: i, Of: 200_000})
		}
		close(done)
		return nil
	}})
	require.NoError(t, control.Clean(t.Context(), conn, "tank/x", func(snapshotter.CleanupProgress) { <-done }))
}

func TestCleanReturnsTheKindOfAnError(t *testing.T) {
	t.Parallel()
	conn := serve(t, &cleaner{clean: func(context.Context, func(snapshotter.CleanupProgress)) error {
		return fmt.Errorf("tank/x: %w", errdefs.ErrUnavailable)
	}})
	err := control.Clean(t.Context(), conn, "tank/x", nil)
	require.ErrorIs(t, err, errdefs.ErrUnavailable)
	assert.ErrorContains(t, err, "tank/x")
}

// Another connection stops a cleanup, and its client gets ErrAborted.
func TestStopEndsACleanup(t *testing.T) {
	t.Parallel()
	stopped := make(chan struct{})
	conn := serve(t, &cleaner{stopped: stopped, clean: func(_ context.Context, report func(snapshotter.CleanupProgress)) error {
		report(snapshotter.CleanupProgress{Of: 1})
		<-stopped
		return fmt.Errorf("stopped: %w", errdefs.ErrAborted)
	}})
	began, result := make(chan struct{}), make(chan error, 1)
	go func() {
		result <- control.Clean(t.Context(), conn, "tank/x", func(snapshotter.CleanupProgress) { close(began) })
	}()
	<-began
	was, err := control.Stop(t.Context(), conn, "tank/x")
	require.NoError(t, err)
	assert.True(t, was)
	require.ErrorIs(t, <-result, errdefs.ErrAborted)
}

// A client that disconnects ends the cleanup. Progress that the cleanup still reports is
// discarded.
func TestCancelledCallerEndsTheCleanup(t *testing.T) {
	t.Parallel()
	over := make(chan error, 1)
	conn := serve(t, &cleaner{clean: func(ctx context.Context, report func(snapshotter.CleanupProgress)) error {
		report(snapshotter.CleanupProgress{Of: 2})
		<-ctx.Done()
		for range 1000 {
			report(snapshotter.CleanupProgress{Looked: 1, Of: 2})
		}
		over <- ctx.Err()
		return ctx.Err()
	}})
	ctx, cancel := context.WithCancel(t.Context())
	err := control.Clean(ctx, conn, "tank/x", func(snapshotter.CleanupProgress) { cancel() })
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, <-over, context.Canceled)
}

// A request for another base has another daemon's address: no cleanup starts or stops.
func TestRequestForAnotherBaseIsRefused(t *testing.T) {
	t.Parallel()
	cleaned := 0
	conn := serve(t, &cleaner{clean: func(context.Context, func(snapshotter.CleanupProgress)) error { cleaned++; return nil }})
	err := control.Clean(t.Context(), conn, "tank/y", nil)
	require.ErrorIs(t, err, errdefs.ErrNotImplemented)
	require.ErrorContains(t, err, "serves dataset tank/x, not tank/y")
	_, err = control.Stop(t.Context(), conn, "tank/y")
	require.ErrorIs(t, err, errdefs.ErrNotImplemented)
	assert.Zero(t, cleaned)
	require.NoError(t, control.Clean(t.Context(), conn, "", nil), "an older command names no base")
	assert.Equal(t, 1, cleaned)
}
