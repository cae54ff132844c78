package plugin

import (
	"errors"
	"fmt"
	"io"
	"time"

	leasesapi "github.com/containerd/containerd/api/services/leases/v1"
	"github.com/containerd/containerd/v2/core/content"
	contentproxy "github.com/containerd/containerd/v2/core/content/proxy"
	"github.com/containerd/containerd/v2/core/leases"
	leasesproxy "github.com/containerd/containerd/v2/core/leases/proxy"
	"github.com/containerd/containerd/v2/defaults"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/platforms"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/zfstpl/zfstpl/snapshotter/diff"
)

// Differ returns the diff service of the instance's snapshots, which reads and stores
// layers in contents.
func (i *Instance) Differ(contents diff.Contents) *diff.Service {
	return diff.New(i.base, i.pool, contents, i.Snapshotter)
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

func init() {
	registry.Register(&plugin.Registration{
		Type:     plugins.DiffPlugin,
		ID:       "zfstpl",
		Requires: []plugin.Type{plugins.SnapshotPlugin, plugins.MetadataPlugin, plugins.LeasePlugin},
		InitFn:   initDiffer,
	})
}

// initDiffer returns the differ of a containerd that has zfstpl built in.
func initDiffer(ic *plugin.InitContext) (any, error) {
	sn, err := ic.GetByID(plugins.SnapshotPlugin, "zfstpl")
	if err != nil {
		return nil, fmt.Errorf("zfstpl: the differ needs the snapshotter: %w: %w", err, plugin.ErrSkipPlugin)
	}
	instance, ok := sn.(*Instance)
	if !ok {
		return nil, errors.New("zfstpl: another snapshotter is registered as zfstpl")
	}
	metadata, err := ic.GetSingle(plugins.MetadataPlugin)
	if err != nil {
		return nil, err
	}
	// An interface and not containerd's own type, which would link its database into the
	// daemon.
	stores, ok := metadata.(interface{ ContentStore() content.Store })
	if !ok {
		return nil, errors.New("zfstpl: containerd's metadata has no content store")
	}
	manager, err := ic.GetByID(plugins.LeasePlugin, "manager")
	if err != nil {
		return nil, err
	}
	lease, ok := manager.(leases.Manager)
	if !ok {
		return nil, errors.New("zfstpl: containerd's plugin lease.manager is not a lease manager")
	}
	ic.Meta.Platforms = append(ic.Meta.Platforms, platforms.DefaultSpec())
	return instance.Differ(diff.Contents{Store: stores.ContentStore(), Leases: lease}), nil
}
