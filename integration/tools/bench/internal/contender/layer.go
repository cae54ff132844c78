//go:build linux

package contender

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Extraction is a layer that is extracted, as the lowest one of an image.
type Extraction struct {
	Layer  ocispec.Descriptor
	Name   string // of the committed snapshot
	key    string
	to     *Through
	mounts []mount.Mount
}

// NewExtraction prepares a snapshot for a layer under the names that containerd gives it.
func (t *Through) NewExtraction(ctx context.Context, layer ocispec.Descriptor) (*Extraction, error) {
	x := &Extraction{Layer: layer, Name: layer.Digest.String(), key: "extract-1-bench " + layer.Digest.String(), to: t}
	var err error
	x.mounts, err = t.Snapshotter.Prepare(ctx, x.key, "", root)
	return x, err
}

// Apply extracts the layer with a differ, with containerd's sync_fs or without.
func (x *Extraction) Apply(ctx context.Context, differ diff.Applier, syncFS bool) error {
	_, err := differ.Apply(ctx, x.Layer, x.mounts, diff.WithSyncFs(syncFS))
	return err
}

// Commit commits the layer.
func (x *Extraction) Commit(ctx context.Context) error { return x.to.Commit(ctx, x.Name, x.key) }

// WriteLayer writes a layer of as many files as writeChanges writes into a content store,
// which keeps it. Layers with different seeds have different content.
func WriteLayer(ctx context.Context, store content.Store, seed byte) (ocispec.Descriptor, error) {
	archive, err := layerArchive(seed)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	layer := ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromBytes(archive), Size: int64(len(archive)),
	}
	err = content.WriteBlob(ctx, store, layer.Digest.String(), bytes.NewReader(archive), layer,
		content.WithLabels(map[string]string{"containerd.io/gc.root": Namespace}))
	return layer, err
}

func layerArchive(seed byte) ([]byte, error) {
	var buffer bytes.Buffer
	archive := tar.NewWriter(&buffer)
	file, random := make([]byte, changeSize), rand.NewChaCha8([32]byte{seed})
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
