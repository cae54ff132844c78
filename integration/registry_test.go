package integration

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/registry"
)

// serveImage serves the image of an archive until t ends. It answers the
// reference by which it is pulled.
func serveImage(t testing.TB, archive string) (*registry.Registry, string) {
	t.Helper()
	image, err := tarball.ImageFromPath(archive, nil)
	require.NoError(t, err)
	r, err := registry.OfImage(image)
	require.NoError(t, err)
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	return r, strings.TrimPrefix(server.URL, "http://") + "/zfstpl/test:1"
}
