package main

import (
	"context"

	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/zfstpl/zfstpl/plugin"
)

// layersHealth is the health of the diff service, which needs containerd's content store
// besides the pool. The snapshots service does not.
type layersHealth struct {
	address string
	ask     func(ctx context.Context, address string) (plugin.Containerd, error)
}

// newLayersHealth returns the health of a diff service whose store is in the containerd
// at an address.
func newLayersHealth(address string) *layersHealth {
	return &layersHealth{address: address, ask: plugin.AskContainerd}
}

// refresh updates the health of the diff service. It does nothing while the pool is
// unhealthy.
func (l *layersHealth) refresh(ctx context.Context, h *poolHealth) {
	asking, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	_, err := l.ask(asking, l.address)
	if ctx.Err() != nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.unhealthy:
	case err != nil:
		h.SetServingStatus(diffService, grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	default:
		h.SetServingStatus(diffService, grpc_health_v1.HealthCheckResponse_SERVING)
	}
}
