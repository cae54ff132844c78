//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/containerd/v2/pkg/rootfs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func (t *tour) commitSecond(ctx context.Context) error {
	t.say("as `nerdctl commit` does it, with containerd's client library")
	return t.withClient(ctx, func(ctx context.Context, c *client.Client) error {
		return t.commit(ctx, c, "second", committed)
	})
}

// commit makes an image of a container.
func (t *tour) commit(ctx context.Context, c *client.Client, id, name string) error {
	container, err := c.LoadContainer(ctx, id)
	if err != nil {
		return err
	}
	info, err := container.Info(ctx)
	if err != nil {
		return err
	}
	base, err := container.Image(ctx)
	if err != nil {
		return err
	}
	started := time.Now()
	layer, err := rootfs.CreateDiff(ctx, info.SnapshotKey, c.SnapshotService(info.Snapshotter), c.DiffService(),
		diff.WithMediaType(ocispec.MediaTypeImageLayerGzip))
	if err != nil {
		return fmt.Errorf("computing what %s has changed: %w", id, err)
	}
	t.say("its changes are a layer of %d bytes, found in %s", layer.Size, seconds(time.Since(started)))
	target, err := writeImage(ctx, c.ContentStore(), base, layer)
	if err != nil {
		return err
	}
	image, err := c.ImageService().Create(ctx, images.Image{Name: name, Target: target})
	if err != nil {
		return fmt.Errorf("creating %s: %w", name, err)
	}
	started = time.Now()
	if err := client.NewImage(c, image).Unpack(ctx, t.snapshotterName()); err != nil {
		return fmt.Errorf("unpacking %s: %w", name, err)
	}
	t.say("%s is unpacked in %s: of its layers only the last is new", name, seconds(time.Since(started)))
	return nil
}

// writeImage stores a configuration and a manifest like the base's with one
// layer more, and returns the manifest's descriptor.
func writeImage(ctx context.Context, store content.Store, base client.Image, layer ocispec.Descriptor) (ocispec.Descriptor, error) {
	var none ocispec.Descriptor
	info, err := store.Info(ctx, layer.Digest)
	if err != nil {
		return none, err
	}
	diffID, err := digest.Parse(info.Labels[labels.LabelUncompressed])
	if err != nil {
		return none, fmt.Errorf("the new layer's label %s: %w", labels.LabelUncompressed, err)
	}
	manifest, err := images.Manifest(ctx, store, base.Target(), platforms.Default())
	if err != nil {
		return none, err
	}
	config, err := base.Spec(ctx)
	if err != nil {
		return none, err
	}
	now := time.Now().UTC()
	config.Created = &now
	config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, diffID)
	config.History = append(config.History, ocispec.History{Created: &now, CreatedBy: "zfstpl integration/tools/demo", Comment: "committed container"})
	configDescriptor, err := writeJSON(ctx, store, ocispec.MediaTypeImageConfig, config, nil)
	if err != nil {
		return none, err
	}
	return writeManifest(ctx, store, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    configDescriptor,
		Layers:    append(manifest.Layers, layer),
	})
}

// writeManifest labels the manifest with what it refers to: the garbage
// collector follows labels, it reads no manifests.
func writeManifest(ctx context.Context, store content.Store, manifest ocispec.Manifest) (ocispec.Descriptor, error) {
	references := map[string]string{"containerd.io/gc.ref.content.config": manifest.Config.Digest.String()}
	for i, layer := range manifest.Layers {
		references[fmt.Sprintf("containerd.io/gc.ref.content.l.%d", i)] = layer.Digest.String()
	}
	return writeJSON(ctx, store, ocispec.MediaTypeImageManifest, manifest, references)
}

func writeJSON(ctx context.Context, store content.Store, mediaType string, value any, references map[string]string) (ocispec.Descriptor, error) {
	blob, err := json.Marshal(value)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	descriptor := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(blob), Size: int64(len(blob))}
	err = content.WriteBlob(ctx, store, descriptor.Digest.String(), bytes.NewReader(blob), descriptor, content.WithLabels(maps.Clone(references)))
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("writing %s: %w", mediaType, err)
	}
	return descriptor, nil
}
