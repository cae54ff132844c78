//go:build linux

package recipe

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
)

// pack writes the image as an OCI layout and that into one tar file.
func (k *kitchen) pack(image v1.Image, path string) error {
	dir := filepath.Join(k.dir, "layout")
	index, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	err = index.AppendImage(image,
		layout.WithAnnotations(map[string]string{
			// The first is containerd's, the second that of other programs.
			"io.containerd.image.name":          Reference,
			"org.opencontainers.image.ref.name": Reference,
		}),
		layout.WithPlatform(v1.Platform{OS: "linux", Architecture: architecture}))
	if err != nil {
		return fmt.Errorf("writing the OCI layout: %w", err)
	}
	return tarDirectory(dir, path)
}

// tarDirectory writes the files below dir, in lexical order and with nothing in
// their headers that another build would write differently.
func tarDirectory(dir, path string) (err error) {
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	w := tar.NewWriter(out)
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		return tarFile(w, path, name)
	})
	if err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	// The rename that follows must not outlive its content in a power cut.
	return out.Sync()
}

func tarFile(w *tar.Writer, path, name string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	header := &tar.Header{Name: name, Mode: 0o644, Size: info.Size(), ModTime: time.Unix(0, 0)}
	if err := w.WriteHeader(header); err != nil {
		return err
	}
	_, err = io.Copy(w, f)
	return err
}
