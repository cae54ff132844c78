//go:build linux

package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"path/filepath"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/containerd/v2/plugins/services/content/contentserver"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc"

	"github.com/zfstpl/zfstpl/integration/standin"
)

const layersSocket = "/run/zfstpl-powercut/containerd.sock"

// layers is as much of a containerd as the daemon needs to unpack: the content store,
// and a report of which process it is.
type layers struct{ content.Store }

// serveLayers begins to serve it, for as long as the machine lives.
func serveLayers() (*layers, error) {
	store, err := local.NewStore(filepath.Join(filepath.Dir(layersSocket), "layers"))
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("unix", layersSocket)
	if err != nil {
		return nil, err
	}
	server := grpc.NewServer()
	contentapi.RegisterContentServer(server, contentserver.New(store))
	standin.Register(server)  // this program calls the daemon itself
	go server.Serve(listener) //nolint:errcheck // the daemon says that it cannot be reached
	return &layers{store}, nil
}

// add puts a layer into the store: so many files of a MiB that nothing makes
// smaller, which follow from its chain ID.
func (l *layers) add(ctx context.Context, chain string, files int) (ocispec.Descriptor, error) {
	var blob bytes.Buffer
	w := tar.NewWriter(&blob)
	r := rand.NewChaCha8(sha256.Sum256([]byte(chain)))
	for i := range files {
		header := tar.Header{Name: fmt.Sprintf("f%d", i), Mode: 0o644, Size: mib}
		if err := w.WriteHeader(&header); err != nil {
			return ocispec.Descriptor{}, err
		}
		if _, err := io.CopyN(w, r, mib); err != nil {
			return ocispec.Descriptor{}, err
		}
	}
	if err := w.Close(); err != nil {
		return ocispec.Descriptor{}, err
	}
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromBytes(blob.Bytes()), Size: int64(blob.Len())}
	return desc, content.WriteBlob(ctx, l.Store, desc.Digest.String(), &blob, desc)
}
