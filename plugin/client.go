package plugin

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"

	introspection "github.com/containerd/containerd/api/services/introspection/v1"
	leasesapi "github.com/containerd/containerd/api/services/leases/v1"
	contentproxy "github.com/containerd/containerd/v2/core/content/proxy"
	leasesproxy "github.com/containerd/containerd/v2/core/leases/proxy"
	"github.com/containerd/containerd/v2/defaults"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/zfstpl/zfstpl/snapshotter/diff"
)

// Containerd is what a containerd reports about itself.
type Containerd struct {
	PID          uint64 // in its own PID namespace; 0 if it does not report one
	PIDNamespace uint64 // the number of that namespace
	// Isolated is whether its content_sharing_policy is "isolated": a namespace gets
	// content of another one only with a proof that it has the content.
	Isolated bool
}

// AskContainerd returns the process and the policy of the containerd that serves
// address. It makes a new connection each time, because an open one does not notice for
// minutes that a containerd listens again. containerd takes no lock of its database for
// the reply, so AskContainerd may be called during a call from containerd.
func AskContainerd(ctx context.Context, address string) (Containerd, error) {
	fail := func(err error) (Containerd, error) {
		return Containerd{}, fmt.Errorf("containerd_address %s: %w", address, errgrpc.ToNative(err))
	}
	var dialer net.Dialer
	probe, err := dialer.DialContext(ctx, "unix", address) // its error is shorter than gRPC's
	if err != nil {
		return fail(err)
	}
	probe.Close()
	conn, err := grpc.NewClient("unix://"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fail(err)
	}
	defer conn.Close()
	client := introspection.NewIntrospectionClient(conn)
	server, err := client.Server(ctx, &emptypb.Empty{})
	if err != nil {
		return fail(err)
	}
	metadata, err := client.Plugins(ctx, &introspection.PluginsRequest{
		Filters: []string{"type==" + plugins.MetadataPlugin.String() + ",id==bolt"},
	})
	if err != nil {
		return fail(err)
	}
	c := Containerd{PID: server.GetPid(), PIDNamespace: server.GetPidns()}
	for _, p := range metadata.GetPlugins() {
		c.Isolated = c.Isolated || p.GetExports()["policy"] == "isolated"
	}
	return c, nil
}

const (
	// redial is the pause before a failed connection to containerd is tried again.
	redial = 100 * time.Millisecond
	// connectTimeout is how long a containerd under load may take to reply on a new
	// connection. A connection to an address where nothing listens fails at once.
	connectTimeout = 20 * time.Second
)

// DialContents returns the content store and the leases of the containerd that serves
// address. It connects when they are first used, and connects again to a containerd that
// was restarted.
func DialContents(address string) (diff.Contents, io.Closer, error) {
	conn, err := grpc.NewClient("unix://"+address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		// By default gRPC waits up to two minutes before it connects again.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: redial, Multiplier: 1, MaxDelay: redial},
			MinConnectTimeout: connectTimeout,
		}),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(defaults.DefaultMaxRecvMsgSize),
			grpc.MaxCallSendMsgSize(defaults.DefaultMaxSendMsgSize)))
	if err != nil {
		return diff.Contents{}, nil, fmt.Errorf("containerd_address %s: %w", address, err)
	}
	return diff.Contents{
		Store:  contentproxy.NewContentStore(conn),
		Leases: leasesproxy.NewLeaseManager(leasesapi.NewLeasesClient(conn)),

		Setting: "containerd_address " + address,
	}, conn, nil
}
