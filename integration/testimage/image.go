// Package testimage makes small images for tests: a few layers around one
// static program.
package testimage

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// File is an entry of a layer: a directory if its name ends with a slash.
type File struct {
	Name    string
	Mode    int64
	Content []byte
	Link    string // a hard link to this file of the layer
}

// Write makes an image called ref with program as its entry point and one
// layer on top of it for each of layers, and writes it to path as an archive
// that 'ctr images import' reads.
func Write(path, ref, program string, layers ...[]File) error {
	binary, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	tag, err := name.NewTag(ref)
	if err != nil {
		return err
	}
	all := append([][]File{{{Name: "app", Mode: 0o755, Content: binary}}}, layers...)
	image, err := Build(v1.Config{Entrypoint: []string{"/app"}, Cmd: []string{"hello"}, Env: []string{"PATH=/"}}, all...)
	if err != nil {
		return fmt.Errorf("image %s: %w", ref, err)
	}
	return tarball.WriteToFile(path, tag, image)
}

// Build makes an image of layers.
func Build(config v1.Config, layers ...[]File) (v1.Image, error) {
	image, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{Architecture: "amd64", OS: "linux", Config: config})
	if err != nil {
		return nil, err
	}
	for _, files := range layers {
		content, err := pack(files)
		if err != nil {
			return nil, err
		}
		layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(content)), nil
		})
		if err != nil {
			return nil, err
		}
		if image, err = mutate.AppendLayers(image, layer); err != nil {
			return nil, err
		}
	}
	return image, nil
}

func pack(files []File) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.Name, Mode: f.Mode, Size: int64(len(f.Content)), Typeflag: tar.TypeReg, Format: tar.FormatPAX}
		if f.Link != "" {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, f.Link, 0
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if strings.HasSuffix(f.Name, "/") {
			h.Typeflag, h.Mode = tar.TypeDir, h.Mode|0o111
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := w.Write(f.Content); err != nil {
				return nil, err
			}
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
