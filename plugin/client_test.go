package plugin

import (
	"context"
	"net"
	"path/filepath"
	"testing"
	"time"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
)

// contentStore is a content store that has any blob.
type contentStore struct {
	contentapi.UnimplementedContentServer
}

func (contentStore) Info(_ context.Context, r *contentapi.InfoRequest) (*contentapi.InfoResponse, error) {
	return &contentapi.InfoResponse{Info: &contentapi.Info{Digest: r.Digest, Size: 7}}, nil
}

// slowListener passes a connection on only some time after it was made.
type slowListener struct {
	net.Listener
	delay time.Duration
}

func (l slowListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	time.Sleep(l.delay)
	return conn, err
}

// On a machine under load containerd takes a while before it replies on a new connection.
// That is not a store that cannot be reached, for which a layer goes to the next differ.
func TestContentsOfASlowContainerd(t *testing.T) {
	t.Parallel()
	address := filepath.Join(t.TempDir(), "c.sock")
	l, err := net.Listen("unix", address)
	require.NoError(t, err)
	server := grpc.NewServer()
	contentapi.RegisterContentServer(server, contentStore{})
	go func() { _ = server.Serve(slowListener{l, 10 * redial}) }()
	t.Cleanup(server.Stop)
	contents, conn, err := DialContents(address)
	require.NoError(t, err)
	defer conn.Close()
	info, err := contents.Store.Info(namespaces.WithNamespace(t.Context(), "default"), "sha256:0000000000000000000000000000000000000000000000000000000000000000")
	require.NoError(t, err)
	assert.EqualValues(t, 7, info.Size)
}

// The error has one line.
func TestAskContainerdErrorNamesTheAddress(t *testing.T) {
	t.Parallel()
	address := filepath.Join(t.TempDir(), "c.sock")
	_, err := AskContainerd(t.Context(), address)
	require.ErrorContains(t, err, "containerd_address "+address)
	require.ErrorContains(t, err, "no such file or directory")
	assert.NotContains(t, err.Error(), "\n")

	// A program listens and does not reply.
	l, err := net.Listen("unix", address)
	require.NoError(t, err)
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = AskContainerd(ctx, address)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	assert.ErrorContains(t, err, "containerd_address "+address)
}
