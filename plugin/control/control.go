// Package control is the daemon's own gRPC service, beside those that containerd uses.
// It runs a cleanup and reports its progress, and stops one.
package control

import (
	"context"
	"fmt"
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

// Cleaner runs and stops cleanups. *snapshotter.Snapshotter implements it.
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
		HandlerType: (*server)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "Stop", Handler: stop}},
		Streams:     []grpc.StreamDesc{runStream},
	}
)

// Register registers a service that runs cleanups of base with c.
func Register(to grpc.ServiceRegistrar, c Cleaner, base string) {
	to.RegisterService(&service, served{c, base})
}

type server interface {
	Cleaner
	check(request *structpb.Struct) error
}

type served struct {
	Cleaner
	base string
}

// baseField is the field of a request that names the base. A request without it is for
// any base.
const baseField = "dataset"

// check returns ErrNotImplemented for a request for another base: its client has the
// address of the wrong daemon.
func (s served) check(request *structpb.Struct) error {
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
	s := sender{stream: stream, pending: make(chan struct{}, 1)}
	done := make(chan struct{})
	go func() { s.run(); close(done) }()
	err := srv.(Cleaner).Clean(stream.Context(), s.report)
	s.end()
	<-done
	return errgrpc.ToGRPC(err)
}

// sender sends the latest progress from its own goroutine, so that a cleanup does not
// wait for a client that reads slowly or, after Ctrl-Z, not at all.
type sender struct {
	stream  grpc.ServerStream
	pending chan struct{} // last is to be sent; closed at the end

	mu    sync.Mutex
	last  snapshotter.CleanupProgress
	ended bool
}

func (s *sender) report(p snapshotter.CleanupProgress) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	s.last = p
	select {
	case s.pending <- struct{}{}:
	default:
	}
}

func (s *sender) run() {
	for range s.pending {
		s.mu.Lock()
		p := s.last
		s.mu.Unlock()
		s.send(p)
	}
}

func (s *sender) send(p snapshotter.CleanupProgress) {
	// The error is ignored: if the client is gone, the context ends the cleanup.
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
	close(s.pending) // run still sends what is pending
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
		return wrapperspb.Bool(srv.(Cleaner).StopCleanup()), nil
	}
	if chain == nil {
		return handle(ctx, nil)
	}
	return chain(ctx, &request, &grpc.UnaryServerInfo{Server: srv, FullMethod: "/" + ServiceName + "/Stop"}, handle)
}
