package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/log"
	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
)

// accepted returns the server's end of a connection that dial makes.
func accepted(t *testing.T, dial func(address string)) net.Conn {
	t.Helper()
	address := socket(t)
	l, err := net.Listen("unix", address)
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	dial(address)
	conn, err := l.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestCallerIsIdentified(t *testing.T) {
	t.Parallel()
	conn := accepted(t, func(address string) {
		client, err := net.Dial("unix", address)
		require.NoError(t, err)
		t.Cleanup(func() { client.Close() })
	})
	c := identify(conn)
	assert.Equal(t, os.Getpid(), c.pid)
	assert.Equal(t, mountNamespace("/proc/self"), c.mount)
	assert.NotEmpty(t, c.mount)
	assert.Equal(t, fmt.Sprintf("/proc/%d/root", os.Getpid()), c.root())
	namespace, pid := pidNamespace("/proc/self")
	assert.Equal(t, namespace, c.pidns)
	assert.NotZero(t, c.pidns)
	assert.Equal(t, pid, c.innerPID)
	assert.Contains(t, c.String(), filepath.Base(os.Args[0])[:8])
	assert.True(t, c.alive())
}

// A process connects and ends: a process that has its PID now did not connect.
func TestEndedCallerIsNotIdentified(t *testing.T) {
	t.Parallel()
	conn := accepted(t, func(address string) {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), connectsTo+"="+address)
		require.NoError(t, cmd.Run())
	})
	c := identify(conn)
	assert.Zero(t, c.pid)
	assert.False(t, c.alive())
	assert.Contains(t, c.String(), "cannot be identified")
}

// connectsTo names the socket that this program connects to instead of running tests.
const connectsTo = "ZFSTPL_TEST_CONNECTS_TO"

func TestMain(m *testing.M) {
	if address := os.Getenv(connectsTo); address != "" {
		if _, err := net.Dial("unix", address); err != nil {
			panic(err)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestCallerOnAnotherSocketIsNotIdentified(t *testing.T) {
	t.Parallel()
	client, server := net.Pipe()
	defer client.Close()
	defer server.Close()
	assert.Zero(t, identify(server).pid)
	assert.Empty(t, identify(server).root())
	assert.Empty(t, (&caller{pid: 7}).root(), "its mount namespace cannot be read")
	assert.False(t, identify(server).alive())
}

// marked runs a server whose callers c admits. It returns a client of the server and a
// function that returns how many requests were marked.
func marked(t *testing.T, c *callers) (snapshotsapi.SnapshotsClient, func() int) {
	t.Helper()
	type mark struct{}
	n, root := 0, fmt.Sprintf("/proc/%d/root", os.Getpid())
	c.mark = func(ctx context.Context, from string) context.Context {
		n++
		assert.Equal(t, root, from)
		return context.WithValue(ctx, mark{}, true)
	}
	server := grpc.NewServer(c.options()...)
	snapshotsapi.RegisterSnapshotsServer(server, newSnapshotService(&stub{}))
	address := socket(t)
	l, err := net.Listen("unix", address)
	require.NoError(t, err)
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	conn, err := grpc.NewClient("unix://"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return snapshotsapi.NewSnapshotsClient(conn), func() int { return n }
}

func TestCallerInTheSameMountNamespaceIsNotMarked(t *testing.T) {
	t.Parallel()
	client, n := marked(t, newCallers(nil))
	_, err := client.Mounts(t.Context(), &snapshotsapi.MountsRequest{Key: "web"})
	require.NoError(t, err)
	assert.Zero(t, n())
}

func TestCallerInAnotherMountNamespaceIsMarkedAndLoggedOnce(t *testing.T) {
	t.Parallel()
	for _, own := range []string{"mnt:[1]", ""} { // another one, or not readable
		c := newCallers(nil)
		c.mount = own
		client, n := marked(t, c)
		for range 2 {
			_, err := client.Mounts(t.Context(), &snapshotsapi.MountsRequest{Key: "web"})
			require.NoError(t, err)
		}
		list, err := client.List(t.Context(), &snapshotsapi.ListSnapshotsRequest{})
		require.NoError(t, err)
		_, err = list.Recv()
		require.Error(t, err, "there is no snapshot")
		assert.Equal(t, 3, n(), "calls and streams")
		assert.Len(t, c.elsewhere.logged, 1)
	}
}

func TestEachProcessIsLoggedOnce(t *testing.T) {
	logger, hook := logtest.NewNullLogger()
	logger.SetLevel(logrus.InfoLevel)
	ctx := log.WithLogger(t.Context(), logrus.NewEntry(logger))
	self, err := os.FindProcess(os.Getpid())
	require.NoError(t, err)
	ended := exec.Command("true")
	require.NoError(t, ended.Run())
	first, second := &caller{pid: 7, process: self}, &caller{pid: 7, process: self}
	gone := &caller{pid: 8, process: ended.Process}
	c := newCallers(nil)
	for _, from := range []*caller{first, first, second, gone, gone, {pid: 8, process: self}, {}, {}} {
		_, err := c.admit(peer.NewContext(ctx, &peer.Peer{AuthInfo: from}), "/"+snapshotsService+"/Mounts")
		require.NoError(t, err)
	}
	_, err = c.admit(ctx, grpc_health_v1.Health_Check_FullMethodName)
	require.NoError(t, err)
	assert.Len(t, hook.AllEntries(), 4, "7, 8, another 8, and the unidentified ones")
	assert.Len(t, c.elsewhere.logged, 3, "a process that has ended is forgotten")
}
