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
	ended    chan struct{} // closed when the daemon stops
	layers   *layersHealth // nil without a diff service

	mu        sync.Mutex
	unhealthy bool
}

// newHealth returns the health service of services. check returns an error if the pool
// cannot be used.
func newHealth(check func(context.Context) error, services ...string) *poolHealth {
	h := &poolHealth{Server: health.NewServer(), services: services, check: check, ended: make(chan struct{})}
	h.set(grpc_health_v1.HealthCheckResponse_SERVING)
	return h
}

func (h *poolHealth) set(status grpc_health_v1.HealthCheckResponse_ServingStatus) {
	for _, name := range h.services {
		h.SetServingStatus(name, status)
	}
}

// refreshFor updates the health of a service.
func (h *poolHealth) refreshFor(ctx context.Context, service string) {
	h.refresh(ctx)
	if h.layers != nil && service == diffService {
		h.layers.refresh(ctx, h)
	}
}

// end reports all services as not serving, also to clients that watch, and ends their
// streams, which the server waits for.
func (h *poolHealth) end() {
	h.Shutdown()
	close(h.ended)
}

func (h *poolHealth) refresh(ctx context.Context) {
	err := h.check(ctx)
	if ctx.Err() != nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.unhealthy == (err != nil) {
		return
	}
	h.unhealthy = err != nil
	if h.unhealthy {
		log.L.WithError(err).Error("pool is unhealthy")
		h.set(grpc_health_v1.HealthCheckResponse_NOT_SERVING)
		return
	}
	log.L.Info("pool is healthy again")
	h.set(grpc_health_v1.HealthCheckResponse_SERVING)
}

func (h *poolHealth) Check(ctx context.Context, r *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	h.refreshFor(ctx, r.GetService())
	return h.Server.Check(ctx, r)
}

func (h *poolHealth) Watch(r *grpc_health_v1.HealthCheckRequest, stream grpc.ServerStreamingServer[grpc_health_v1.HealthCheckResponse]) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	h.refreshFor(ctx, r.GetService())
	done := make(chan struct{})
	go func() {
		defer close(done)
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
				h.refreshFor(ctx, r.GetService())
			}
		}
	}()
	err := h.Server.Watch(r, watchStream{stream, ctx})
	cancel()
	<-done
	return err
}

// watchStream is a stream whose context ends when the daemon stops.
type watchStream struct {
	grpc.ServerStreamingServer[grpc_health_v1.HealthCheckResponse]
	ctx context.Context
}

func (w watchStream) Context() context.Context { return w.ctx }
