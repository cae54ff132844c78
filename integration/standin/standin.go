// Package standin stands in for containerd where a test or a measurement calls a daemon's
// snapshots service itself: the daemon serves only the process that the containerd at its
// containerd_address reports.
package standin

import (
	"context"
	"fmt"
	"net"
	"os"

	introspection "github.com/containerd/containerd/api/services/introspection/v1"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"
)

// Serve serves at a unix socket what a daemon asks of containerd, until stop is called. register
// adds further services.
func Serve(address string, register ...func(grpc.ServiceRegistrar)) (stop func(), err error) {
	listener, err := net.Listen("unix", address)
	if err != nil {
		return nil, err
	}
	server := grpc.NewServer()
	Register(server)
	for _, add := range register {
		add(server)
	}
	go func() { _ = server.Serve(listener) }() // it ends with stop
	return server.Stop, nil
}

// Register has a server report this process as containerd.
func Register(to grpc.ServiceRegistrar) {
	introspection.RegisterIntrospectionServer(to, self{})
}

// self reports this process.
type self struct {
	introspection.UnimplementedIntrospectionServer
}

func (self) Server(context.Context, *emptypb.Empty) (*introspection.ServerResponse, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/pid", &st); err != nil {
		return nil, fmt.Errorf("PID namespace: %w", err)
	}
	return &introspection.ServerResponse{Pid: uint64(os.Getpid()), Pidns: st.Ino}, nil
}

func (self) Plugins(context.Context, *introspection.PluginsRequest) (*introspection.PluginsResponse, error) {
	return &introspection.PluginsResponse{}, nil
}
