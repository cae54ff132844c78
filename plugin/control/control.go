// Package control is a daemon's own service, beside those that containerd uses: a
// cleanup that somebody waits for, with its progress, and the end of one.
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

// ServiceName is the service's, in gRPC.
const ServiceName = "zfstpl.v1.Cleanup"

// Cleaner does the work. *snapshotter.Snapshotter is one.
type Cleaner interface {
	Clean(ctx context.Context, report func(snapshotter.Progress)) error
	StopCleanup() bool
}

var (
	runStream = grpc.StreamDesc{StreamName: "Run", ServerStreams: true, Handler: run}
	// The messages are protobuf's own types: both are asked with a struct that names
	// the base, Run answers a stream of structs with the numbers of a
	// snapshotter.Progress, Stop whether there was a cleanup.
	service = grpc.ServiceDesc{
		ServiceName: ServiceName,
		HandlerType: (*server)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "Stop", Handler: stop}},
		Streams:     []grpc.StreamDesc{runStream},
	}
)

// Register has to serve c, which cleans up the base of that name.
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

// baseField names the base in a request. Where it is missing any will do.
const baseField = "dataset"

// check refuses a request that is for another base: who asks has another's address.
func (s served) check(request *structpb.Struct) error {
	want := request.GetFields()[baseField].GetStringValue()
	if want == "" || want == s.base {
		return nil
	}
	return errgrpc.ToGRPC(fmt.Errorf("the daemon serves dataset %s, not %s: %w", s.base, want, errdefs.ErrNotImplemented))
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

// sender sends progress from a goroutine of its own, the latest there is: whoever
// asked may read slowly, or not at all (Ctrl-Z), and the cleanup does not wait for
// him.
type sender struct {
	stream  grpc.ServerStream
	pending chan struct{} // there is something to send; closed at the end

	mu    sync.Mutex
	last  snapshotter.Progress
	ended bool
}

func (s *sender) report(p snapshotter.Progress) {
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
	close(s.pending) // what is in it is still sent
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
