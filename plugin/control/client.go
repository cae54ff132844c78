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

// Clean has a daemon clean up its base and returns when that is done. It ends when
// ctx does, with ErrAborted when somebody stops it, and with ErrNotImplemented when
// the daemon serves another base.
func Clean(ctx context.Context, conn grpc.ClientConnInterface, base string, report func(snapshotter.Progress)) error {
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
			report(snapshotter.Progress{Looked: number(&p, "looked"), Of: number(&p, "of"), Destroyed: number(&p, "destroyed")})
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

// Stop ends the cleanup of its base that a daemon is at and answers whether there was
// one. Its error is ErrNotImplemented when the daemon serves another base.
func Stop(ctx context.Context, conn grpc.ClientConnInterface, base string) (bool, error) {
	var was wrapperspb.BoolValue
	err := conn.Invoke(ctx, "/"+ServiceName+"/Stop", request(base), &was)
	return was.GetValue(), errgrpc.ToNative(err)
}
