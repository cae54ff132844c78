package plugin

import (
	"context"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

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
