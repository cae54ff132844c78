//go:build linux

package recipe

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// A blob is a layer on its way into the image.
type blob struct {
	step
	layer v1.Layer
	// uncompressed is the size of the tar.
	uncompressed int64
	// newest is the time of the newest file that a package brought.
	newest time.Time
}

// layer makes the tree of step i on a copy of lower, which is "" for the first,
// and writes what changed.
func (k *kitchen) layer(ctx context.Context, i int, lower string) (string, blob, error) {
	s := steps[i]
	b := blob{step: s}
	tree := filepath.Join(k.dir, fmt.Sprintf("tree-%d", i+1))
	if err := k.copyTree(ctx, lower, tree); err != nil {
		return "", b, err
	}
	if err := s.make(ctx, k, tree); err != nil {
		return "", b, err
	}
	var err error
	if b.newest, err = newest(tree, k.started); err != nil {
		return "", b, err
	}
	path := tree + ".tar.gz"
	if b.uncompressed, err = writeLayer(ctx, lower, tree, path, b.newest); err != nil {
		return "", b, err
	}
	b.layer, err = tarball.LayerFromFile(path, tarball.WithMediaType(types.OCILayer))
	return tree, b, err
}

// copyTree copies everything there is to a file: owners, times, links, extended
// attributes and holes.
func (k *kitchen) copyTree(ctx context.Context, from, to string) error {
	if from == "" {
		return os.Mkdir(to, 0o755)
	}
	return k.run(k.command(ctx, `exec cp --archive --reflink=auto --no-target-directory "$@"`, from, to))
}

// writeLayer writes the difference of two trees as a compressed tar and returns
// its uncompressed size. Times after newest are set to it.
func writeLayer(ctx context.Context, lower, upper, path string, newest time.Time) (size int64, err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	zipped := gzip.NewWriter(f)
	counted := &counter{w: zipped}
	if err := archive.WriteDiff(ctx, counted, lower, upper, archive.WithSourceDateEpoch(&newest)); err != nil {
		return 0, err
	}
	return counted.n, zipped.Close()
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// newest is the time of the newest file in tree that is older than the build:
// whatever the packages themselves bring, and nothing the build wrote. Two
// builds of the same packages agree on it, and no file that python3 compiled
// gets a time its byte code does not expect.
func newest(tree string, started time.Time) (time.Time, error) {
	found := time.Unix(0, 0)
	err := filepath.WalkDir(tree, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if t := info.ModTime().Truncate(time.Second); t.After(found) && t.Before(started.Truncate(time.Second)) {
			found = t
		}
		return nil
	})
	return found.UTC(), err
}

// copyFile copies content only, to a file that may not be there yet.
func copyFile(from, to string, perm uint32) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return file("", content, perm)(to)
}

func firstLine(text string) string {
	first, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return first
}
