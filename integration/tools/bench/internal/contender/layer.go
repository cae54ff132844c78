//go:build linux

package contender

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// WriteLayer writes a layer of as many files as writeChanges writes into a content store,
// which keeps it.
func WriteLayer(ctx context.Context, store content.Store) (ocispec.Descriptor, error) {
	archive, err := layerArchive()
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	layer := ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromBytes(archive), Size: int64(len(archive)),
	}
	err = content.WriteBlob(ctx, store, "layer", bytes.NewReader(archive), layer,
		content.WithLabels(map[string]string{"containerd.io/gc.root": Namespace}))
	return layer, err
}

func layerArchive() ([]byte, error) {
	var buffer bytes.Buffer
	archive := tar.NewWriter(&buffer)
	file, random := make([]byte, changeSize), rand.NewChaCha8([32]byte{})
	for i := range changedFiles {
		if _, err := random.Read(file); err != nil {
			return nil, err
		}
		header := &tar.Header{Name: fmt.Sprintf("var/file%03d", i), Mode: 0o644, Size: changeSize}
		if err := archive.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := archive.Write(file); err != nil {
			return nil, err
		}
	}
	err := archive.Close()
	return buffer.Bytes(), err
}
