//go:build linux

package recipe

import (
	"encoding/json"
	"fmt"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
)

// assemble puts layers and configuration together. Nothing is written.
func assemble(blobs []blob) (v1.Image, error) {
	image := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	image = mutate.ConfigMediaType(image, types.OCIConfigJSON)
	created := v1.Time{Time: blobs[len(blobs)-1].newest}
	for _, b := range blobs {
		var err error
		image, err = mutate.Append(image, mutate.Addendum{
			Layer: b.layer,
			History: v1.History{
				Created:   v1.Time{Time: b.newest},
				CreatedBy: "zfstpl integration/tools/image: " + b.name,
				Comment:   b.about,
			},
			MediaType: types.OCILayer,
		})
		if err != nil {
			return nil, fmt.Errorf("appending layer %s: %w", b.name, err)
		}
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Created = "linux", architecture, created
	config.Config = v1.Config{
		Cmd:        []string{Command},
		Env:        []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8"},
		WorkingDir: "/" + applicationDir,
	}
	return mutate.ConfigFile(image, config)
}

// writeLayers writes down what the layers are.
func writeLayers(path string, blobs []blob) error {
	var layers []Layer
	var diffIDs []digest.Digest
	for _, b := range blobs {
		sum, err := b.layer.Digest()
		if err != nil {
			return err
		}
		diffID, err := b.layer.DiffID()
		if err != nil {
			return err
		}
		size, err := b.layer.Size()
		if err != nil {
			return err
		}
		diffIDs = append(diffIDs, digest.Digest(diffID.String()))
		layers = append(layers, Layer{
			Name: b.name, About: b.about,
			Digest: sum.String(), DiffID: diffID.String(),
			// ChainID works in place: it must not get the slice that grows.
			ChainID: identity.ChainID(append([]digest.Digest(nil), diffIDs...)).String(),
			Size:    size, Uncompressed: b.uncompressed,
		})
	}
	content, err := json.MarshalIndent(layers, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(content, '\n'), 0o644)
}
