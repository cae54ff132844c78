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
	s := sender{stream: stream, news: make(chan struct{}, 1)}
	done := make(chan struct{})
	go func() { s.run(); close(done) }()
	err := srv.(Cleaner).Clean(stream.Context(), s.tell)
	s.end()
	<-done
	return errgrpc.ToGRPC(err)
}

// sender sends progress from a goroutine of its own, the latest there is: whoever
// asked may read slowly, or not at all (Ctrl-Z), and the cleanup does not wait for
// him.
type sender struct {
	stream grpc.ServerStream
	news   chan struct{} // there is something to send; closed at the end

	mu    sync.Mutex
	last  snapshotter.Progress
	ended bool
}

func (s *sender) tell(p snapshotter.Progress) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	s.last = p
	select {
	case s.news <- struct{}{}:
	default:
	}
}

func (s *sender) run() {
	for range s.news {
		s.mu.Lock()
		p := s.last
		s.mu.Unlock()
		s.send(p)
	}
}

func (s *sender) send(p snapshotter.Progress) {
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
	s.ended = true
	close(s.news) // what is in it is still sent
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
