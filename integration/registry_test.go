package integration

import (
	"net/http/httptest"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/registry"
)

// serveImage serves the image of an archive until t ends. It returns the
// reference by which it is pulled.
func serveImage(t testing.TB, archive string) (*registry.Registry, string) {
	t.Helper()
	image, err := tarball.ImageFromPath(archive, nil)
	require.NoError(t, err)
	return serveAs(t, image, "zfstpl/test:1")
}

// serveAs serves an image under a name until t ends.
func serveAs(t testing.TB, image v1.Image, name string) (*registry.Registry, string) {
	t.Helper()
	r, err := registry.OfImage(image)
	require.NoError(t, err)
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	return r, strings.TrimPrefix(server.URL, "http://") + "/" + name
}
