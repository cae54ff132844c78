// Package control is a daemon's own service, beside those that containerd uses: a
// cleanup that somebody waits for, with its progress, and the end of one.
package control

import (
	"context"
	"sync"

	"github.com/containerd/errdefs/pkg/errgrpc"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/zfstpl/zfstpl/snapshotter"
)

// ServiceName is the service's, in gRPC.
const ServiceName = "zfstpl.v1.Cleanup"

// Cleaner does the work. *snapshotter.Snapshotter is one.
type Cleaner interface {
	Clean(ctx context.Context, tell func(snapshotter.Progress)) error
	StopCleanup() bool
}

var (
	runStream = grpc.StreamDesc{StreamName: "Run", ServerStreams: true, Handler: run}
	// The messages are protobuf's own types: Run answers a stream of structs with
	// the numbers of a snapshotter.Progress, Stop whether there was a cleanup.
	service = grpc.ServiceDesc{
		ServiceName: ServiceName,
		HandlerType: (*Cleaner)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "Stop", Handler: stop}},
		Streams:     []grpc.StreamDesc{runStream},
	}
)

// Register has server serve c.
func Register(server grpc.ServiceRegistrar, c Cleaner) { server.RegisterService(&service, c) }

func run(srv any, stream grpc.ServerStream) error {
	if err := stream.RecvMsg(&emptypb.Empty{}); err != nil {
		return err
	}
	s := sender{stream: stream}
	err := srv.(Cleaner).Clean(stream.Context(), s.send)
	s.end()
	return errgrpc.ToGRPC(err)
}

// sender sends progress for as long as the stream is there.
type sender struct {
	mu     sync.Mutex
	stream grpc.ServerStream
}

func (s *sender) send(p snapshotter.Progress) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stream == nil {
		return
	}
	// Who asked may be gone; the cleanup hears of that by its context.
	_ = s.stream.SendMsg(&structpb.Struct{Fields: map[string]*structpb.Value{
		"looked":    structpb.NewNumberValue(float64(p.Looked)),
		"of":        structpb.NewNumberValue(float64(p.Of)),
		"destroyed": structpb.NewNumberValue(float64(p.Destroyed)),
	}})
}

func (s *sender) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stream = nil
}

func stop(srv any, ctx context.Context, dec func(any) error, chain grpc.UnaryServerInterceptor) (any, error) {
	if err := dec(&emptypb.Empty{}); err != nil {
		return nil, err
	}
	handle := func(context.Context, any) (any, error) { return wrapperspb.Bool(srv.(Cleaner).StopCleanup()), nil }
	if chain == nil {
		return handle(ctx, nil)
	}
	return chain(ctx, &emptypb.Empty{}, &grpc.UnaryServerInfo{Server: srv, FullMethod: "/" + ServiceName + "/Stop"}, handle)
}
