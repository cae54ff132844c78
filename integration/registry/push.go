package registry

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// push takes a blob or a manifest. Blobs come in one piece: nothing here cuts them.
func (r *Registry) push(w http.ResponseWriter, req *http.Request) {
	dir, last := path.Split(req.URL.Path)
	switch {
	case req.Method == http.MethodPost && strings.HasSuffix(dir, "/blobs/uploads/"):
		w.Header().Set("Location", path.Join(dir, "next"))
		w.WriteHeader(http.StatusAccepted)
		return
	case req.Method != http.MethodPut:
		http.Error(w, "only what is put is taken", http.StatusMethodNotAllowed)
		return
	}
	content, err := io.ReadAll(req.Body)
	if err == nil && strings.HasSuffix(dir, "/manifests/") {
		err = r.putManifest(req.URL.Path, last, manifest{content, req.Header.Get("Content-Type"), digest.FromBytes(content).String()})
	} else if err == nil {
		err = r.putBlob(req.URL.Query().Get("digest"), content)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Docker-Content-Digest", digest.FromBytes(content).String())
	w.WriteHeader(http.StatusCreated)
}

func (r *Registry) putBlob(want string, content []byte) error {
	if is := digest.FromBytes(content).String(); is != want {
		return fmt.Errorf("a blob said to be %s is %s", want, is)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.blobs[want] = content
	return nil
}

// putManifest takes a manifest, or an index, of which everything is there.
func (r *Registry) putManifest(to, last string, m manifest) error {
	if strings.Contains(last, ":") && last != m.digest {
		return fmt.Errorf("a manifest said to be %s is %s", last, m.digest)
	}
	var names struct {
		Config    ocispec.Descriptor
		Layers    []ocispec.Descriptor
		Manifests []ocispec.Descriptor
	}
	if err := json.Unmarshal(m.content, &names); err != nil {
		return fmt.Errorf("manifest %s: %w", m.digest, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	blobs := names.Layers
	if names.Config.Digest != "" {
		blobs = append(blobs, names.Config)
	}
	for _, blob := range blobs {
		if _, ok := r.blobs[blob.Digest.String()]; !ok {
			return fmt.Errorf("manifest %s has blob %s, which was not pushed", m.digest, blob.Digest)
		}
	}
	for _, below := range names.Manifests {
		if _, ok := r.pushed[below.Digest.String()]; !ok && below.Digest.String() != r.image.digest {
			return fmt.Errorf("index %s has manifest %s, which was not pushed", m.digest, below.Digest)
		}
	}
	r.pushed[to], r.pushed[m.digest] = m, m
	return nil
}
