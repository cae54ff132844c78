package main

import (
	"context"
	"strings"
	"sync"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/log"
	"google.golang.org/grpc"

	"github.com/zfstpl/zfstpl/snapshotter"
)

// callers says to the snapshotter what it has to know of whom a request comes from.
type callers struct {
	mount string // the daemon's own mount namespace
	mark  func(context.Context) context.Context

	mu     sync.Mutex
	logged map[int]*caller // by PID: those that are in another mount namespace
}

func newCallers() *callers {
	return &callers{mount: mountNamespace("/proc/self"), mark: snapshotter.WithOtherMountNamespace, logged: make(map[int]*caller)}
}

// options make a server tell the snapshotter of its callers.
func (c *callers) options() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.Creds(unixCredentials{}),
		grpc.ChainUnaryInterceptor(c.unary),
		grpc.ChainStreamInterceptor(c.stream),
	}
}

func (c *callers) unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	return handle(c.context(ctx, info.FullMethod), request)
}

func (c *callers) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	return handle(srv, streamWith{stream, c.context(stream.Context(), info.FullMethod)})
}

// context returns that of a request, with what the snapshotter has to know.
func (c *callers) context(ctx context.Context, method string) context.Context {
	from := callerOf(ctx)
	if from.mount != "" && from.mount == c.mount {
		return ctx
	}
	if isOf(method, snapshotsapi.Snapshots_ServiceDesc.ServiceName) {
		c.log(ctx, from)
	}
	return c.mark(ctx)
}

// log says once of each process that mounts of the daemon are not visible to it.
func (c *callers) log(ctx context.Context, from *caller) {
	c.mu.Lock()
	known := c.logged[from.pid]
	again := known != nil && (known == from || from.pid == 0 || known.alive())
	if !again {
		c.logged[from.pid] = from
	}
	c.mu.Unlock()
	if again {
		return
	}
	log.G(ctx).WithField("process", from.pid).WithField("program", from.name).
		Info("the caller is in another mount namespace: it mounts datasets itself")
}

// isOf reports whether a method, as gRPC has its name, is a service's.
func isOf(method, service string) bool { return strings.HasPrefix(method, "/"+service+"/") }

// streamWith is a stream with another context.
type streamWith struct {
	grpc.ServerStream
	ctx context.Context
}

// Context returns that context.
func (s streamWith) Context() context.Context { return s.ctx }
