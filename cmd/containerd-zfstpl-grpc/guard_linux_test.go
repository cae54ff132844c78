package main

import (
	"context"
	"net"
	"os"
	"os/exec"
	"sync"
	"testing"

	diffapi "github.com/containerd/containerd/api/services/diff/v1"
	introspection "github.com/containerd/containerd/api/services/introspection/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/zfstpl/zfstpl/plugin"
	"github.com/zfstpl/zfstpl/plugin/control"
)

// reporting is a containerd that reports what its fields say.
type reporting struct {
	introspection.UnimplementedIntrospectionServer
	mu     sync.Mutex
	pid    uint64
	pidns  uint64
	policy string
	hangs  bool
	asked  int
}

func (r *reporting) Server(ctx context.Context, _ *emptypb.Empty) (*introspection.ServerResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked++
	if r.hangs {
		<-ctx.Done()
	}
	return &introspection.ServerResponse{UUID: "changes", Pid: r.pid, Pidns: r.pidns}, nil
}

func (r *reporting) Plugins(_ context.Context, request *introspection.PluginsRequest) (*introspection.PluginsResponse, error) {
	return &introspection.PluginsResponse{Plugins: []*introspection.Plugin{
		{Type: "io.containerd.metadata.v1", ID: "bolt", Exports: map[string]string{"policy": r.policy}},
	}}, nil
}

// self is a containerd that reports this very process.
func self() *reporting {
	namespace, pid := pidNamespace("/proc/self")
	return &reporting{pid: uint64(pid), pidns: namespace, policy: "shared"}
}

// serveAt serves r until the test ends or stop is called.
func (r *reporting) serveAt(t *testing.T, address string) (stop func()) {
	t.Helper()
	l, err := net.Listen("unix", address)
	require.NoError(t, err)
	server := grpc.NewServer()
	introspection.RegisterIntrospectionServer(server, r)
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	return server.Stop
}

// guarded serves sn to the process that serves the address containerd, and returns a
// connection to it.
func guarded(t *testing.T, sn service, containerd string) *grpc.ClientConn {
	t.Helper()
	return guardedWith(t, sn, nil, containerd)
}

// guardedWith is guarded with a differ.
func guardedWith(t *testing.T, sn service, differ differ, containerd string) *grpc.ClientConn {
	t.Helper()
	address := socket(t)
	l, err := net.Listen("unix", address)
	require.NoError(t, err)
	server, _ := newServer(sn, differ, newGuard("tank/zfstpl", containerd))
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	return dial(t, address)
}

// calls returns all methods of the snapshots service, by name.
func calls(ctx context.Context, c snapshots.Snapshotter) map[string]func() error {
	return map[string]func() error{
		"stat":    func() error { _, err := c.Stat(ctx, "x"); return err },
		"update":  func() error { _, err := c.Update(ctx, snapshots.Info{Name: "x"}); return err },
		"usage":   func() error { _, err := c.Usage(ctx, "x"); return err },
		"mounts":  func() error { _, err := c.Mounts(ctx, "x"); return err },
		"prepare": func() error { _, err := c.Prepare(ctx, "x", ""); return err },
		"view":    func() error { _, err := c.View(ctx, "x", ""); return err },
		"commit":  func() error { return c.Commit(ctx, "x", "y") },
		"remove":  func() error { return c.Remove(ctx, "x") },
		"walk":    func() error { return c.Walk(ctx, func(context.Context, snapshots.Info) error { return nil }) },
		"cleanup": func() error { return c.(snapshots.Cleaner).Cleanup(ctx) },
	}
}

func TestContainerdAtTheAddressIsAdmitted(t *testing.T) {
	t.Parallel()
	c, address := self(), socket(t)
	c.serveAt(t, address)
	for name, call := range calls(t.Context(), client(guarded(t, &stub{}, address))) {
		assert.NoError(t, call(), name)
	}
	assert.Equal(t, 1, c.asked, "it is asked once in its life")
}

// A second containerd is shown nothing, and its garbage collection ends with an error.
func TestAnotherProcessIsRefused(t *testing.T) {
	t.Parallel()
	c, address := self(), socket(t)
	c.pid = 1
	c.serveAt(t, address)
	sn := &stub{infos: []snapshots.Info{{Name: "web"}}}
	conn := guarded(t, sn, address)
	for name, call := range calls(t.Context(), client(conn)) {
		err := call()
		require.ErrorIs(t, err, errdefs.ErrPermissionDenied, name)
		assert.ErrorContains(t, err, callerName(t), name)
		assert.ErrorContains(t, err, "process 1 (", name)
		assert.ErrorContains(t, err, address, name)
		assert.NotContains(t, err.Error(), "\n", name)
	}
	assert.Zero(t, sn.cleaned)

	status, err := grpc_health_v1.NewHealthClient(conn).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	require.NoError(t, err, "any process may check the health")
	assert.Equal(t, grpc_health_v1.HealthCheckResponse_SERVING, status.Status)
	_, err = control.Stop(t.Context(), conn, "tank/zfstpl")
	require.NoError(t, err, "any process may use the administrator's commands")
}

// The daemon would read and write the layers in the store of another containerd. Not
// implemented makes the caller use its next differ.
func TestDiffServiceRefusesAnotherContainerdAsNotImplemented(t *testing.T) {
	t.Parallel()
	c, address := self(), socket(t)
	c.serveAt(t, address)
	made := &noDiffer{}
	client := diffapi.NewDiffClient(guardedWith(t, &stub{}, made, address))
	_, err := client.Apply(t.Context(), &diffapi.ApplyRequest{Diff: &types.Descriptor{}})
	require.NoError(t, err)
	other, elsewhere := self(), socket(t)
	other.pid = 1
	other.serveAt(t, elsewhere)
	client = diffapi.NewDiffClient(guardedWith(t, &stub{}, made, elsewhere))
	for what, call := range map[string]func() error{
		"apply": func() error {
			_, err := client.Apply(t.Context(), &diffapi.ApplyRequest{Diff: &types.Descriptor{}})
			return err
		},
		"compare": func() error { _, err := client.Diff(t.Context(), &diffapi.DiffRequest{}); return err },
	} {
		err := errgrpc.ToNative(call())
		require.ErrorIs(t, err, errdefs.ErrNotImplemented, what)
		assert.ErrorContains(t, err, "containerd_address "+elsewhere, what)
	}
	assert.Equal(t, 1, made.asked)
}

// noDiffer is a differ that counts its calls.
type noDiffer struct{ asked int }

func (d *noDiffer) Apply(context.Context, ocispec.Descriptor, []mount.Mount, ...diff.ApplyOpt) (ocispec.Descriptor, error) {
	d.asked++
	return ocispec.Descriptor{}, nil
}

func (d *noDiffer) Compare(context.Context, []mount.Mount, []mount.Mount, ...diff.Opt) (ocispec.Descriptor, error) {
	d.asked++
	return ocispec.Descriptor{}, nil
}

// The diff service is healthy as long as its store can be reached. The snapshots service
// does not need it.
func TestDiffServiceHealthFollowsContainerd(t *testing.T) {
	t.Parallel()
	address := socket(t)
	health := grpc_health_v1.NewHealthClient(guardedWith(t, &stub{}, &noDiffer{}, address))
	status := func(service string) grpc_health_v1.HealthCheckResponse_ServingStatus {
		reply, err := health.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: service})
		require.NoError(t, err)
		return reply.Status
	}
	for range 2 {
		assert.Equal(t, grpc_health_v1.HealthCheckResponse_NOT_SERVING, status(diffService))
		for _, service := range []string{"", snapshotsService, control.ServiceName} {
			assert.Equal(t, grpc_health_v1.HealthCheckResponse_SERVING, status(service), service)
		}
		stop := self().serveAt(t, address)
		assert.Equal(t, grpc_health_v1.HealthCheckResponse_SERVING, status(diffService))
		stop()
	}
}

func callerName(t *testing.T) string {
	t.Helper()
	return (&caller{pid: os.Getpid(), name: programName("/proc/self")}).String()
}

func TestSamePIDInAnotherNamespaceIsRefused(t *testing.T) {
	t.Parallel()
	c, address := self(), socket(t)
	c.pidns++
	c.serveAt(t, address)
	err := client(guarded(t, &stub{}, address)).Remove(t.Context(), "web")
	require.ErrorIs(t, err, errdefs.ErrPermissionDenied)
	assert.ErrorContains(t, err, "of PID namespace")
}

// containerd collects garbage before it listens, and must be able to start: everything
// else is admitted.
func TestRemovalsAreRefusedWhileContainerdIsUnknown(t *testing.T) {
	t.Parallel()
	address := socket(t)
	sn := &stub{}
	conn := guarded(t, sn, address)
	all := calls(t.Context(), client(conn))
	for name, call := range all {
		err := call()
		if name != "remove" && name != "cleanup" {
			require.NoError(t, err, name)
			continue
		}
		require.ErrorIs(t, err, errdefs.ErrUnavailable, name)
		assert.ErrorContains(t, err, "containerd_address "+address, name)
	}
	assert.Zero(t, sn.cleaned)
	self().serveAt(t, address)
	require.NoError(t, all["remove"](), "a containerd that listens is found at once")
	require.NoError(t, all["cleanup"]())
}

// A containerd that does not reply delays one call, and not those after it.
func TestHangingContainerdIsNotAskedEachTime(t *testing.T) {
	t.Parallel()
	c, address := self(), socket(t)
	c.hangs = true
	c.serveAt(t, address)
	sn := client(guarded(t, &stub{}, address))
	for range 50 {
		_, err := sn.Stat(t.Context(), "web")
		require.NoError(t, err)
		require.ErrorIs(t, sn.Remove(t.Context(), "web"), errdefs.ErrUnavailable)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	assert.Less(t, c.asked, 50, "not every call asks it")
}

func TestAdmitReturnsWhenTheContextEnds(t *testing.T) {
	t.Parallel()
	g := newGuard("tank/zfstpl", "/x")
	g.ask = func(ctx context.Context, _ string) (plugin.Containerd, error) {
		<-ctx.Done()
		return plugin.Containerd{}, ctx.Err()
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := g.admit(ctx, &caller{}, false)
	require.ErrorIs(t, err, context.Canceled)
	assert.NoError(t, g.askErr, "the error is not containerd's")
}

// A containerd that was restarted is another process, with another UUID if its database
// was lost. The old process, if it lives on, is refused.
func TestRestartedContainerdIsAdmitted(t *testing.T) {
	t.Parallel()
	start := func() *caller {
		cmd := exec.Command("sleep", "1000")
		require.NoError(t, cmd.Start())
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		return &caller{pid: cmd.Process.Pid, innerPID: cmd.Process.Pid, pidns: 7, process: cmd.Process}
	}
	server, asked := plugin.Containerd{PIDNamespace: 7}, 0
	g := newGuard("tank/zfstpl", "/x")
	g.ask = func(context.Context, string) (plugin.Containerd, error) { asked++; return server, nil }
	admit := func(from *caller) error { _, err := g.admit(t.Context(), from, true); return err }

	first, second := start(), start()
	server.PID = uint64(first.innerPID)
	require.NoError(t, admit(first))
	require.NoError(t, admit(first))
	require.NoError(t, admit(&caller{pid: first.pid, process: first.process}), "another connection of the same process")
	assert.Equal(t, 1, asked)
	require.ErrorIs(t, admit(second), errdefs.ErrPermissionDenied)
	require.NoError(t, admit(first))
	assert.Equal(t, 2, asked)

	server.PID = uint64(second.innerPID)
	require.NoError(t, admit(second))
	require.ErrorIs(t, admit(first), errdefs.ErrPermissionDenied)

	require.NoError(t, second.process.Kill())
	_, err := second.process.Wait()
	require.NoError(t, err)
	require.ErrorIs(t, admit(second), errdefs.ErrPermissionDenied, "it has ended, and its PID is free")
}

func TestUnidentifiedCallerIsRefused(t *testing.T) {
	t.Parallel()
	alive, err := os.FindProcess(os.Getpid())
	require.NoError(t, err)
	g := newGuard("tank/zfstpl", "/x")
	g.ask = func(context.Context, string) (plugin.Containerd, error) {
		return plugin.Containerd{PID: 5, PIDNamespace: 7}, nil
	}
	for what, from := range map[string]*caller{
		"not visible":                {},
		"its namespace is not known": {pid: 5, innerPID: 5, process: alive},
		"another namespace":          {pid: 5, innerPID: 5, pidns: 8, process: alive},
		"only its PID here is right": {pid: 5, innerPID: 6, pidns: 7, process: alive},
	} {
		_, err := g.admit(t.Context(), from, true)
		require.ErrorIs(t, err, errdefs.ErrPermissionDenied, what)
	}
	_, err = g.admit(t.Context(), &caller{pid: 99, innerPID: 5, pidns: 7, process: alive}, true)
	require.NoError(t, err, "its PID in its own namespace counts")
}

func TestContainerdWithoutAPIDIsUnknown(t *testing.T) {
	t.Parallel()
	g := newGuard("tank/zfstpl", "/x")
	g.ask = func(context.Context, string) (plugin.Containerd, error) { return plugin.Containerd{}, nil }
	_, err := g.admit(t.Context(), &caller{}, false)
	require.NoError(t, err)
	_, err = g.admit(t.Context(), &caller{}, true)
	require.ErrorIs(t, err, errdefs.ErrUnavailable)
	assert.ErrorContains(t, err, "does not report its process")
}

func TestWithoutAnAddressThereIsNoGuard(t *testing.T) {
	t.Parallel()
	assert.Nil(t, newGuard("tank/zfstpl", ""))
	for name, call := range calls(t.Context(), client(guarded(t, &stub{}, ""))) {
		assert.NoError(t, call(), name)
	}
}

// Requests of a containerd with isolated namespaces are marked.
func TestIsolatedNamespacesAreMarked(t *testing.T) {
	t.Parallel()
	for policy, want := range map[string]int{"shared": 0, "isolated": 2, "": 0} {
		server, address := self(), socket(t)
		server.policy = policy
		server.serveAt(t, address)
		c := newCallers(newGuard("tank/zfstpl", address))
		n := 0
		c.apart = func(ctx context.Context) context.Context { n++; return ctx }
		client, _ := marked(t, c)
		for range 2 { // asked first, known later
			_, err := client.Prepare(t.Context(), &snapshotsapi.PrepareSnapshotRequest{Key: "web"})
			require.NoError(t, err)
		}
		assert.Equal(t, want, n, policy)
		assert.Equal(t, 1, server.asked)
	}
}
