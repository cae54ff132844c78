package integration

import (
	"net/http"
	"net/http/httptest"
	"path"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/stretchr/testify/require"
)

// registry serves one image on the loopback device and counts what is fetched.
type registry struct {
	manifest  []byte
	mediaType string
	digest    string
	blobs     map[string][]byte // by digest
	layers    map[string]bool   // digests of those that are layers

	mu      sync.Mutex
	fetched int // layers
}

// serveImage serves the image of an archive until t ends. It answers the
// reference by which it is pulled.
func serveImage(t testing.TB, archive string) (*registry, string) {
	t.Helper()
	image, err := tarball.ImageFromPath(archive, nil)
	require.NoError(t, err)
	r := &registry{blobs: make(map[string][]byte), layers: make(map[string]bool)}
	r.manifest, err = image.RawManifest()
	require.NoError(t, err)
	mediaType, err := image.MediaType()
	require.NoError(t, err)
	digest, err := image.Digest()
	require.NoError(t, err)
	r.mediaType, r.digest = string(mediaType), digest.String()
	config, err := image.RawConfigFile()
	require.NoError(t, err)
	name, err := image.ConfigName()
	require.NoError(t, err)
	r.blobs[name.String()] = config
	layers, err := image.Layers()
	require.NoError(t, err)
	for _, l := range layers {
		digest, err := l.Digest()
		require.NoError(t, err)
		r.blobs[digest.String()] = readLayer(t, l.Compressed)
		r.layers[digest.String()] = true
	}
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	return r, strings.TrimPrefix(server.URL, "http://") + "/zfstpl/test:1"
}

func (r *registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	content, mediaType, digest := []byte("{}"), "application/json", ""
	switch dir, last := path.Split(req.URL.Path); {
	case strings.HasSuffix(dir, "/manifests/"):
		content, mediaType, digest = r.manifest, r.mediaType, r.digest
	case strings.HasSuffix(dir, "/blobs/"):
		blob, ok := r.blobs[last]
		if !ok {
			http.NotFound(w, req)
			return
		}
		content, mediaType, digest = blob, "application/octet-stream", last
		if req.Method == http.MethodGet && r.layers[last] {
			r.mu.Lock()
			r.fetched++
			r.mu.Unlock()
		}
	}
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Content-Length", strconv.Itoa(len(content)))
	w.Header().Set("Docker-Content-Digest", digest)
	if req.Method != http.MethodHead {
		_, _ = w.Write(content) // who hung up needs no answer
	}
}

// layersFetched answers how many layers were fetched since it was last asked.
func (r *registry) layersFetched() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.fetched
	r.fetched = 0
	return n
}
