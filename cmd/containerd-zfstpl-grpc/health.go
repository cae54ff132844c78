package main

import (
	"context"
	"sync"
	"time"

	"github.com/containerd/log"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// healthInterval is the interval of checks for a client that watches the health.
const healthInterval = 5 * time.Second

// poolHealth is the health service. Each check asks for the state of the pool: a daemon
// whose pool is suspended runs and can do nothing.
type poolHealth struct {
	*health.Server
	services []string
	check    func(context.Context) error
	// checkStore returns an error if containerd's content store, which only the diff
	// service needs, cannot be reached. It is nil without a diff service.
	checkStore func(context.Context) error
	// checkLog returns an error if changes of snapshots wait for transaction groups, because
	// the log of the base cannot be used.
	checkLog func() error
	ended    chan struct{} // closed when the daemon stops

	mu        sync.Mutex
	unhealthy bool
}

// logService is the name for which the health service reports whether the log of the base is
// used. The other services work without it, more slowly.
const logService = "zfstpl.log"

// newHealth returns the health service of services. check returns an error if the pool
// cannot be used, and checkLog one if the log cannot.
func newHealth(check func(context.Context) error, checkLog func() error, services ...string) *poolHealth {
	services = append(services, logService)
	h := &poolHealth{Server: health.NewServer(), services: services, check: check, checkLog: checkLog, ended: make(chan struct{})}
	h.set(nil, services...)
	return h
}

// set reports services as serving, or as not serving if err is not nil.
func (h *poolHealth) set(err error, services ...string) {
	status := grpc_health_v1.HealthCheckResponse_SERVING
	if err != nil {
		status = grpc_health_v1.HealthCheckResponse_NOT_SERVING
	}
	for _, name := range services {
		h.SetServingStatus(name, status)
	}
}

// end reports all services as not serving, also to clients that watch, and ends their
// streams, which the server waits for.
func (h *poolHealth) end() {
	h.Shutdown()
	close(h.ended)
}

// refresh updates the health of a service.
func (h *poolHealth) refresh(ctx context.Context, service string) {
	h.refreshPool(ctx)
	var err error
	switch {
	case service == logService:
		err = h.checkLog()
	case service == diffService && h.checkStore != nil:
		err = h.checkStore(ctx)
	default:
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if ctx.Err() == nil && !h.unhealthy {
		h.set(err, service)
	}
}

func (h *poolHealth) refreshPool(ctx context.Context) {
	err := h.check(ctx)
	h.mu.Lock()
	defer h.mu.Unlock()
	if ctx.Err() != nil || h.unhealthy == (err != nil) {
		return
	}
	h.unhealthy = err != nil
	h.set(err, h.services...)
	if h.unhealthy {
		log.L.WithError(err).Error("pool is unhealthy")
	} else {
		log.L.Info("pool is healthy again")
	}
}

func (h *poolHealth) Check(ctx context.Context, r *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	h.refresh(ctx, r.GetService())
	return h.Server.Check(ctx, r)
}

// Watch ends when the daemon stops.
func (h *poolHealth) Watch(r *grpc_health_v1.HealthCheckRequest, stream grpc.ServerStreamingServer[grpc_health_v1.HealthCheckResponse]) error {
	ctx, cancel := context.WithCancel(stream.Context())
	h.refresh(ctx, r.GetService())
	var refreshing sync.WaitGroup
	defer refreshing.Wait()
	defer cancel()
	refreshing.Go(func() {
		defer cancel()
		tick := time.NewTicker(healthInterval)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-h.ended:
				return
			case <-tick.C:
				h.refresh(ctx, r.GetService())
			}
		}
	})
	return h.Server.Watch(r, &grpc.GenericServerStream[grpc_health_v1.HealthCheckRequest, grpc_health_v1.HealthCheckResponse]{ServerStream: streamWith{stream, ctx}})
}
