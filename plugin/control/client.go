package control

import (
	"context"
	"errors"
	"io"

	"github.com/containerd/errdefs/pkg/errgrpc"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/zfstpl/zfstpl/snapshotter"
)

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
