// Package registry serves one image as a registry does, and what is pushed to it, and
// counts what is fetched. It serves the image by every name that nothing was pushed to,
// and checks no credentials: it is for tests and the demo, on the loopback device.
package registry

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"strconv"
	"strings"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Registry is an http.Handler.
type Registry struct {
	image  manifest
	layers map[string]bool // digests of the image's layers

	mu      sync.Mutex
	blobs   map[string][]byte   // by digest
	pushed  map[string]manifest // by the path that it was pushed to, and by digest
	fetched Fetched
}

// manifest is a manifest or an index.
type manifest struct {
	content           []byte
	mediaType, digest string
}

// Fetched is what was fetched of layers.
type Fetched struct {
	Layers int
	Bytes  int64
}

func newRegistry() *Registry {
	return &Registry{blobs: make(map[string][]byte), layers: make(map[string]bool), pushed: make(map[string]manifest)}
}

// OfImage serves an image that a library has read.
func OfImage(image v1.Image) (*Registry, error) {
	r := newRegistry()
	var err error
	if r.image.content, err = image.RawManifest(); err != nil {
		return nil, err
	}
	mediaType, err := image.MediaType()
	if err != nil {
		return nil, err
	}
	r.image.mediaType, r.image.digest = string(mediaType), digest.FromBytes(r.image.content).String()
	config, err := image.RawConfigFile()
	if err != nil {
		return nil, err
	}
	r.blobs[digest.FromBytes(config).String()] = config
	layers, err := image.Layers()
	if err != nil {
		return nil, err
	}
	for _, l := range layers {
		if err := r.addLayer(l); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (r *Registry) addLayer(l v1.Layer) error {
	digest, err := l.Digest()
	if err != nil {
		return err
	}
	reader, err := l.Compressed()
	if err != nil {
		return err
	}
	content, err := io.ReadAll(reader)
	if err = errors.Join(err, reader.Close()); err != nil {
		return err
	}
	r.blobs[digest.String()] = content
	r.layers[digest.String()] = true
	return nil
}

// OfLayout serves the image of a tar archive of an OCI image layout that has one.
func OfLayout(archive string) (*Registry, error) {
	file, err := os.Open(archive)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	r := newRegistry()
	var index ocispec.Index
	for reader := tar.NewReader(file); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", archive, err)
		}
		content, err := io.ReadAll(reader)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", archive, err)
		}
		switch dir, last := path.Split(path.Clean(header.Name)); {
		case last == ocispec.ImageIndexFile && dir == "":
			if err := json.Unmarshal(content, &index); err != nil {
				return nil, fmt.Errorf("%s: %s: %w", archive, header.Name, err)
			}
		case strings.HasPrefix(dir, ocispec.ImageBlobsDir+"/"):
			r.blobs[path.Base(dir)+":"+last] = content
		}
	}
	if len(index.Manifests) != 1 {
		return nil, fmt.Errorf("%s has %d images, one is wanted", archive, len(index.Manifests))
	}
	target := index.Manifests[0]
	r.image = manifest{r.blobs[target.Digest.String()], target.MediaType, target.Digest.String()}
	var content ocispec.Manifest
	if err := json.Unmarshal(r.image.content, &content); err != nil {
		return nil, fmt.Errorf("%s: manifest %s: %w", archive, target.Digest, err)
	}
	for _, l := range content.Layers {
		r.layers[l.Digest.String()] = true
	}
	return r, nil
}

func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.Method != http.MethodGet && req.Method != http.MethodHead {
		r.push(w, req)
		return
	}
	content, mediaType, digest := []byte("{}"), "application/json", ""
	switch dir, last := path.Split(req.URL.Path); {
	case strings.HasSuffix(dir, "/manifests/"):
		m, ok := r.manifest(req.URL.Path)
		if !ok {
			http.NotFound(w, req)
			return
		}
		content, mediaType, digest = m.content, m.mediaType, m.digest
	case strings.HasSuffix(dir, "/blobs/"):
		blob, ok := r.blob(last, req.Method == http.MethodGet)
		if !ok {
			http.NotFound(w, req)
			return
		}
		content, mediaType, digest = blob, "application/octet-stream", last
	}
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Content-Length", strconv.Itoa(len(content)))
	w.Header().Set("Docker-Content-Digest", digest)
	if req.Method != http.MethodHead {
		_, _ = w.Write(content) // a client that hung up needs no reply
	}
}

// manifest returns what was pushed to a path, or else the image's. Another digest has none:
// who pushes would take it to be there.
func (r *Registry) manifest(to string) (manifest, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if m, ok := r.pushed[to]; ok {
		return m, true
	}
	last := path.Base(to)
	if m, ok := r.pushed[last]; ok {
		return m, true
	}
	return r.image, last == r.image.digest || !strings.Contains(last, ":")
}

// blob returns a blob, and counts it if it is one of the image's layers and fetched.
func (r *Registry) blob(digest string, fetched bool) ([]byte, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	blob, ok := r.blobs[digest]
	if ok && fetched && r.layers[digest] {
		r.fetched.Layers++
		r.fetched.Bytes += int64(len(blob))
	}
	return blob, ok
}

// Fetched returns what was fetched since it was last asked.
func (r *Registry) Fetched() Fetched {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.fetched
	r.fetched = Fetched{}
	return now
}
