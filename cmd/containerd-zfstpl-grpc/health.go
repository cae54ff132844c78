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

// healthFresh is how often it is looked how the pool is while somebody watches.
const healthInterval = 5 * time.Second

// poolHealth answers health checks by what the pool is like when they come: with
// its disks gone a daemon lives and can do nothing.
type poolHealth struct {
	*health.Server
	services []string
	check    func(context.Context) error
	ended    chan struct{} // closed when the daemon stops: nobody watches on
	layers   *layersHealth // nil where no layers are made

	mu        sync.Mutex
	unhealthy bool
}

// newHealth answers a server of health checks. check answers why nothing can be
// served, or nil.
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

// lookAt finds out how what a service needs is.
func (h *poolHealth) refreshFor(ctx context.Context, service string) {
	h.refresh(ctx)
	if h.layers != nil && service == diffService {
		h.layers.refresh(ctx, h)
	}
}

// end says that nothing is served any more, also to those who watch, and lets them
// go: the server waits for them.
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
		log.L.WithError(err).Error("nothing can be served")
		h.set(grpc_health_v1.HealthCheckResponse_NOT_SERVING)
		return
	}
	log.L.Info("snapshots can be served again")
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

// watching is a stream that may end before its client goes.
type watchStream struct {
	grpc.ServerStreamingServer[grpc_health_v1.HealthCheckResponse]
	ctx context.Context
}

func (w watchStream) Context() context.Context { return w.ctx }
