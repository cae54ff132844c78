package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	diffapi "github.com/containerd/containerd/api/services/diff/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/contrib/diffservice"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/defaults"
	"github.com/containerd/log"
	"github.com/coreos/go-systemd/v22/daemon"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/zfstpl/zfstpl/plugin/control"
)

// drainTime is how long running calls may take after SIGTERM. systemd kills the daemon
// after 60 s.
const drainTime = 30 * time.Second

// serve serves sn on address until ctx ends, and then completes running calls. differ may
// be nil. A guard that is not nil decides which process may use the snapshots.
func serve(ctx context.Context, address string, sn service, differ differ, guard *guard) error {
	listener, err := listen(address)
	if err != nil {
		return err
	}
	server, status := newServer(sn, differ, guard)
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	log.G(ctx).WithField("address", address).Info("serving")
	notify(ctx, daemon.SdNotifyReady)

	select {
	case err := <-failed:
		return fmt.Errorf("serving %s: %w", address, err)
	case <-ctx.Done():
	}
	notify(ctx, daemon.SdNotifyStopping)
	log.G(ctx).Info("stopping")
	status.end()
	drain(server, sn)
	if err := <-failed; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return err
	}
	return nil
}

// service is what the daemon needs of a snapshotter.
type service interface {
	snapshots.Snapshotter
	snapshots.Cleaner
	control.Cleaner
	// Dataset returns the name of the base.
	Dataset() string
	// Healthy returns an error if the pool cannot be used.
	Healthy(ctx context.Context) error
	// LogError returns why the log of the base is not used, or nil.
	LogError() error
}

// differ makes layers of snapshots and snapshots of layers.
type differ interface {
	diff.Applier
	diff.Comparer
}

// newServer returns a server of a snapshotter and, if it is not nil, a differ.
func newServer(sn service, differ differ, guard *guard) (*grpc.Server, *poolHealth) {
	server := grpc.NewServer(append(newCallers(guard).options(),
		grpc.MaxRecvMsgSize(defaults.DefaultMaxRecvMsgSize),
		grpc.MaxSendMsgSize(defaults.DefaultMaxSendMsgSize),
		// A cancelled call rolls back, which needs the pool and containerd.
		grpc.WaitForHandlers(true))...)
	snapshotsapi.RegisterSnapshotsServer(server, newSnapshotService(sn))
	control.Register(server, sn, sn.Dataset())
	services := []string{"", snapshotsapi.Snapshots_ServiceDesc.ServiceName, control.ServiceName}
	if differ != nil {
		diffapi.RegisterDiffServer(server, layerService{diffservice.FromApplierAndComparer(differ, differ)})
		services = append(services, diffapi.Diff_ServiceDesc.ServiceName)
	}
	status := newHealth(sn.Healthy, sn.LogError, services...)
	if differ != nil && guard != nil {
		status.checkStore = guard.reach
	}
	grpc_health_v1.RegisterHealthServer(server, status)
	return server, status
}

// drain waits for running calls, and ends them after drainTime. It stops cleanups at
// once, because the next one destroys the rest.
func drain(server *grpc.Server, sn control.Cleaner) {
	done := make(chan struct{})
	go func() { server.GracefulStop(); close(done) }()
	deadline := time.After(drainTime)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		sn.StopCleanup() // again and again, because another cleanup may have waited
		select {
		case <-done:
			return
		case <-deadline:
			server.Stop()
			return
		case <-tick.C:
		}
	}
}

// notify sends the daemon's state to systemd, if that started the daemon.
func notify(ctx context.Context, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.G(ctx).WithError(err).Warn("failed to notify systemd")
	}
}
