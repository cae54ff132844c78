package main

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/zfstpl/zfstpl/plugin/control"
)

// While the pool is unusable every service is not serving, also to a client that watches.
func TestHealthFollowsThePool(t *testing.T) {
	t.Parallel()
	sn := &stub{}
	client := grpc_health_v1.NewHealthClient(dial(t, running(t, sn)))
	status := func(name string) grpc_health_v1.HealthCheckResponse_ServingStatus {
		reply, err := client.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: name})
		require.NoError(t, err)
		return reply.Status
	}
	watch, err := client.Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	require.NoError(t, err)
	received := func() grpc_health_v1.HealthCheckResponse_ServingStatus {
		reply, err := watch.Recv()
		require.NoError(t, err)
		return reply.Status
	}
	assert.Equal(t, grpc_health_v1.HealthCheckResponse_SERVING, received())
	for range 2 {
		for _, name := range []string{"", control.ServiceName} {
			assert.Equal(t, grpc_health_v1.HealthCheckResponse_SERVING, status(name))
		}
		sn.failWith(errors.New("the pool is suspended"))
		for _, name := range []string{"", control.ServiceName} {
			assert.Equal(t, grpc_health_v1.HealthCheckResponse_NOT_SERVING, status(name))
		}
		assert.Equal(t, grpc_health_v1.HealthCheckResponse_NOT_SERVING, received())
		sn.failWith(nil)
		assert.Equal(t, grpc_health_v1.HealthCheckResponse_SERVING, status(""))
		assert.Equal(t, grpc_health_v1.HealthCheckResponse_SERVING, received())
	}
}

// A base whose log cannot be used is served. Only the health of the log says so.
func TestHealthReportsTheLog(t *testing.T) {
	t.Parallel()
	sn := &stub{}
	client := grpc_health_v1.NewHealthClient(dial(t, running(t, sn)))
	status := func(name string) grpc_health_v1.HealthCheckResponse_ServingStatus {
		reply, err := client.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: name})
		require.NoError(t, err)
		return reply.Status
	}
	for _, noLog := range []error{nil, errors.New("sync=disabled"), nil} {
		sn.mu.Lock()
		sn.noLog = noLog
		sn.mu.Unlock()
		want := grpc_health_v1.HealthCheckResponse_SERVING
		if noLog != nil {
			want = grpc_health_v1.HealthCheckResponse_NOT_SERVING
		}
		assert.Equal(t, want, status(logService))
		assert.Equal(t, grpc_health_v1.HealthCheckResponse_SERVING, status(""))
	}
}
