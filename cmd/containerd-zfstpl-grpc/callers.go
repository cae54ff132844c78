package main

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"

	diffapi "github.com/containerd/containerd/api/services/diff/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/log"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/zfstpl/zfstpl/snapshotter"
)

// callers admits or refuses requests by the process that they come from, and marks their
// contexts for the snapshotter.
type callers struct {
	mount string                                        // the daemon's own mount namespace
	mark  func(context.Context, string) context.Context // of a caller in another one, with the path to its root directory
	apart func(context.Context) context.Context         // of one whose namespaces are isolated
	guard *guard                                        // nil: every process may use the snapshots

	elsewhere once // logged: those that are in another mount namespace
}

var (
	snapshotsService = snapshotsapi.Snapshots_ServiceDesc.ServiceName
	diffService      = diffapi.Diff_ServiceDesc.ServiceName
)

func newCallers(g *guard) *callers {
	return &callers{mount: mountNamespace("/proc/self"), mark: snapshotter.WithOtherMountNamespace, apart: snapshotter.WithOwnTemplates, guard: g}
}

// options returns the options of a server that identifies its callers.
func (c *callers) options() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.Creds(unixCredentials{insecure.NewCredentials()}),
		grpc.ChainUnaryInterceptor(c.unary),
		grpc.ChainStreamInterceptor(c.stream),
	}
}

func (c *callers) unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	ctx, err := c.admit(ctx, info.FullMethod)
	if err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	return handle(ctx, request)
}

func (c *callers) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	ctx, err := c.admit(stream.Context(), info.FullMethod)
	if err != nil {
		return errgrpc.ToGRPC(err)
	}
	return handle(srv, streamWith{stream, ctx})
}

// admit returns the context of a request with the marks for the snapshotter, or an error
// if the request is refused.
func (c *callers) admit(ctx context.Context, method string) (context.Context, error) {
	from, ofSnapshots := callerOf(ctx), isOf(method, snapshotsService)
	if c.guard != nil && (ofSnapshots || isOf(method, diffService)) {
		isolated, err := c.guard.admit(ctx, from, removes(method))
		if err != nil && !ofSnapshots {
			// The store at the address does not have the layers of another containerd.
			return ctx, fmt.Errorf("%s: %w", err.Error(), errdefs.ErrNotImplemented)
		}
		if err != nil {
			return ctx, err
		}
		if isolated {
			ctx = c.apart(ctx)
		}
	}
	if from.mount != "" && from.mount == c.mount {
		return ctx, nil
	}
	if ofSnapshots && c.elsewhere.first(from) {
		log.G(ctx).WithField("process", from.pid).WithField("program", from.name).
			Info("caller is in another mount namespace")
	}
	return c.mark(ctx, from.root()), nil
}

// isOf reports whether a method, given by its full name, is one of a service.
func isOf(method, service string) bool { return strings.HasPrefix(method, "/"+service+"/") }

// removes reports whether a method removes snapshots.
func removes(method string) bool {
	return isOf(method, snapshotsService) && (strings.HasSuffix(method, "/Remove") || strings.HasSuffix(method, "/Cleanup"))
}

// streamWith is a stream with another context.
type streamWith struct {
	grpc.ServerStream
	ctx context.Context
}

// Context returns that context.
func (s streamWith) Context() context.Context { return s.ctx }

// once remembers for which processes something was logged.
type once struct {
	mu     sync.Mutex
	logged map[int]*caller // by PID
}

// first reports whether it is called for the first time for the process of a caller. All
// callers that cannot be identified count as one.
func (o *once) first(from *caller) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if known := o.logged[from.pid]; known != nil && (known == from || from.pid == 0 || known.alive()) {
		return false
	}
	if o.logged == nil {
		o.logged = make(map[int]*caller)
	}
	maps.DeleteFunc(o.logged, func(_ int, c *caller) bool { return c.pid != 0 && !c.alive() }) // each has a descriptor
	o.logged[from.pid] = from
	return true
}
