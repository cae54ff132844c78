// Package control is the daemon's own gRPC service, beside those that containerd uses.
// It runs a cleanup and reports its progress, and stops one.
package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/zfstpl/zfstpl/snapshotter"
)

// ServiceName is the name of the gRPC service.
const ServiceName = "zfstpl.v1.Cleanup"

// Cleaner runs and stops cleanups. *snapshotter.Snapshotter implements it. Clean calls
// report before it returns, from one goroutine at a time.
type Cleaner interface {
	Clean(ctx context.Context, report func(snapshotter.CleanupProgress)) error
	StopCleanup() bool
}

var (
	runStream = grpc.StreamDesc{StreamName: "Run", ServerStreams: true, Handler: run}
	// The messages are protobuf's well-known types. The request of both methods is a
	// struct that names the base. Run returns a stream of structs with the numbers of a
	// snapshotter.CleanupProgress, Stop a bool: whether there was a cleanup.
	service = grpc.ServiceDesc{
		ServiceName: ServiceName,
		HandlerType: (*Cleaner)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "Stop", Handler: stop}},
		Streams:     []grpc.StreamDesc{runStream},
	}
)

// Register registers a service that runs cleanups of base with c.
func Register(to grpc.ServiceRegistrar, c Cleaner, base string) {
	to.RegisterService(&service, server{c, base})
}

type server struct {
	Cleaner
	base string
}

// baseField is the field of a request that names the base. A request without it is for
// any base.
const baseField = "dataset"

// check returns ErrNotImplemented for a request for another base: its client has the
// address of the wrong daemon.
func (s server) check(request *structpb.Struct) error {
	want := request.GetFields()[baseField].GetStringValue()
	if want == "" || want == s.base {
		return nil
	}
	return errgrpc.ToGRPC(fmt.Errorf("daemon serves dataset %s, not %s: %w", s.base, want, errdefs.ErrNotImplemented))
}

func run(srv any, stream grpc.ServerStream) error {
	var request structpb.Struct
	if err := stream.RecvMsg(&request); err != nil {
		return err
	}
	if err := srv.(server).check(&request); err != nil {
		return err
	}
	// A goroutine of its own sends the latest progress, so that a cleanup does not wait for
	// a client that reads slowly or, after Ctrl-Z, not at all.
	latest := make(chan snapshotter.CleanupProgress, 1)
	var sending sync.WaitGroup
	sending.Go(func() {
		for p := range latest {
			send(stream, p)
		}
	})
	err := srv.(server).Clean(stream.Context(), func(p snapshotter.CleanupProgress) {
		select {
		case <-latest: // it was not sent in time
		default:
		}
		latest <- p
	})
	close(latest) // the last one is still sent
	sending.Wait()
	return errgrpc.ToGRPC(err)
}

func send(stream grpc.ServerStream, p snapshotter.CleanupProgress) {
	// The error is ignored: if the client is gone, the context ends the cleanup.
	_ = stream.SendMsg(&structpb.Struct{Fields: map[string]*structpb.Value{
		"looked":    structpb.NewNumberValue(float64(p.Looked)),
		"of":        structpb.NewNumberValue(float64(p.Of)),
		"destroyed": structpb.NewNumberValue(float64(p.Destroyed)),
	}})
}

func stop(srv any, ctx context.Context, dec func(any) error, chain grpc.UnaryServerInterceptor) (any, error) {
	var request structpb.Struct
	if err := dec(&request); err != nil {
		return nil, err
	}
	handle := func(context.Context, any) (any, error) {
		if err := srv.(server).check(&request); err != nil {
			return nil, err
		}
		return wrapperspb.Bool(srv.(server).StopCleanup()), nil
	}
	if chain == nil {
		return handle(ctx, nil)
	}
	return chain(ctx, &request, &grpc.UnaryServerInfo{Server: srv, FullMethod: "/" + ServiceName + "/Stop"}, handle)
}

// Clean runs a cleanup in the daemon and returns when it is complete. It calls report,
// which may be nil, with the progress. The error is ErrAborted if the cleanup was
// stopped, and ErrNotImplemented if the daemon serves another base. The cleanup ends
// when ctx does.
func Clean(ctx context.Context, conn grpc.ClientConnInterface, base string, report func(snapshotter.CleanupProgress)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := conn.NewStream(ctx, &runStream, "/"+ServiceName+"/Run")
	if err == nil {
		err = stream.SendMsg(request(base))
	}
	if err == nil {
		err = stream.CloseSend()
	}
	for err == nil {
		var p structpb.Struct
		if err = stream.RecvMsg(&p); err == nil && report != nil {
			report(snapshotter.CleanupProgress{Looked: number(&p, "looked"), Of: number(&p, "of"), Destroyed: number(&p, "destroyed")})
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return errgrpc.ToNative(err)
}

func number(s *structpb.Struct, name string) int { return int(s.GetFields()[name].GetNumberValue()) }

func request(base string) *structpb.Struct {
	return &structpb.Struct{Fields: map[string]*structpb.Value{baseField: structpb.NewStringValue(base)}}
}

// Stop stops the daemon's running cleanup and reports whether there was one. The error
// is ErrNotImplemented if the daemon serves another base.
func Stop(ctx context.Context, conn grpc.ClientConnInterface, base string) (bool, error) {
	var was wrapperspb.BoolValue
	err := conn.Invoke(ctx, "/"+ServiceName+"/Stop", request(base), &was)
	return was.GetValue(), errgrpc.ToNative(err)
}
