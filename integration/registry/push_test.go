package registry_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/registry"
)

// What is pushed is served, under its name and its digest, and every other name has the
// image. What is not what it is said to be, or not complete, is refused.
func TestPush(t *testing.T) {
	t.Parallel()
	r, err := registry.OfImage(empty.Image)
	require.NoError(t, err)
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	send := func(method, path, content string) (status int, body, location string) {
		req, err := http.NewRequest(method, server.URL+path, strings.NewReader(content))
		require.NoError(t, err)
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		text, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		return resp.StatusCode, string(text), resp.Header.Get("Location")
	}
	const layer = "a layer"
	manifest := fmt.Sprintf(`{"layers":[{"digest":%q}]}`, digest.FromString(layer))
	index := fmt.Sprintf(`{"manifests":[{"digest":%q}]}`, digest.FromString(manifest))

	status, body, _ := send("PUT", "/v2/a/manifests/1", manifest)
	assert.Equal(t, http.StatusBadRequest, status)
	assert.Contains(t, body, "was not pushed")
	status, _, to := send("POST", "/v2/a/blobs/uploads/", "")
	require.Equal(t, http.StatusAccepted, status)
	to += "?digest=" + digest.FromString(layer).String()
	status, _, _ = send("PUT", to, "another")
	assert.Equal(t, http.StatusBadRequest, status)
	status, _, _ = send("PATCH", to, layer)
	assert.Equal(t, http.StatusMethodNotAllowed, status)
	status, _, _ = send("PUT", to, layer)
	require.Equal(t, http.StatusCreated, status)
	status, body, _ = send("GET", "/v2/a/blobs/"+digest.FromString(layer).String(), "")
	assert.Equal(t, http.StatusOK, status)
	assert.Equal(t, layer, body)

	status, body, _ = send("PUT", "/v2/a/manifests/2", index)
	assert.Equal(t, http.StatusBadRequest, status)
	assert.Contains(t, body, "was not pushed")
	status, _, _ = send("PUT", "/v2/a/manifests/"+digest.FromString(index).String(), manifest)
	assert.Equal(t, http.StatusBadRequest, status)
	status, _, _ = send("PUT", "/v2/a/manifests/1", manifest)
	require.Equal(t, http.StatusCreated, status)
	status, _, _ = send("PUT", "/v2/a/manifests/2", index)
	require.Equal(t, http.StatusCreated, status)

	status, _, _ = send("HEAD", "/v2/a/manifests/"+digest.FromString("another").String(), "")
	assert.Equal(t, http.StatusNotFound, status, "no digest has another's content")
	image, err := empty.Image.RawManifest()
	require.NoError(t, err)
	for path, want := range map[string]string{
		"a/manifests/1": manifest, "a/manifests/2": index, "a/manifests/" + digest.FromString(manifest).String(): manifest,
		"a/manifests/3": string(image), "b/manifests/1": string(image), "b/manifests/" + digest.FromBytes(image).String(): string(image),
	} {
		status, body, _ = send("GET", "/v2/"+path, "")
		assert.Equal(t, http.StatusOK, status, path)
		assert.Equal(t, want, body, path)
	}
}
