//go:build linux

package recipe

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/pkg/archive"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/zfstpl/zfstpl/integration/tools/image/manifest"
)

// check applies the image's layers to an empty directory the way containerd
// does, compares the result with tree, and writes the manifest they agree on.
func (k *kitchen) check(ctx context.Context, image v1.Image, tree, path string) error {
	applied := filepath.Join(k.dir, "applied")
	if err := os.Mkdir(applied, 0o755); err != nil {
		return err
	}
	layers, err := image.Layers()
	if err != nil {
		return err
	}
	for i, layer := range layers {
		if err := applyLayer(ctx, applied, layer); err != nil {
			return fmt.Errorf("applying layer %d: %w", i+1, err)
		}
	}
	want, err := manifest.Walk(tree)
	if err != nil {
		return err
	}
	got, err := manifest.Walk(applied)
	if err != nil {
		return err
	}
	if differences := manifest.Compare(want, got); differences != nil {
		return fmt.Errorf("the image is not what it was made from: %d differences:\n%s",
			len(differences), strings.Join(differences, "\n"))
	}
	return writeManifest(path, want)
}

func applyLayer(ctx context.Context, dir string, layer v1.Layer) (err error) {
	r, err := layer.Uncompressed()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	_, err = archive.Apply(ctx, dir, r)
	return err
}

func writeManifest(path string, entries []manifest.Entry) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return manifest.Write(f, entries)
}
