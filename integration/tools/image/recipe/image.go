//go:build linux

package recipe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// The files of a cache entry.
const (
	tarName    = "image.tar"
	rootfsName = "rootfs.jsonl"
	layersName = "layers.json"
)

// Options say where an image is made.
type Options struct {
	// Cache is the directory that holds the images made so far, and for the
	// time of the work a few copies of a root file system.
	Cache string
	// Rebuild makes the image anew though the cache has it.
	Rebuild bool
	// Progress gets a line for each step. The cache hit is silent.
	Progress io.Writer
}

// An Image is a finished one.
type Image struct {
	// Tar is an OCI layout in a tar file, tagged Reference.
	Tar string
	// Rootfs is the manifest of the final root file system.
	Rootfs string
	// Layers describe the image, lowest first.
	Layers []Layer
}

// A Layer is one of the image's.
type Layer struct {
	Name    string `json:"name"`
	About   string `json:"about"`
	Digest  string `json:"digest"`
	DiffID  string `json:"diffID"`
	ChainID string `json:"chainID"`
	// Size is that of the compressed blob, Uncompressed that of the tar in it.
	Size         int64 `json:"size"`
	Uncompressed int64 `json:"uncompressed"`
}

// Make returns the recipe's image, made now if the cache does not have it. Two
// at once do the work once. What fails or is cancelled leaves nothing but a log.
func Make(ctx context.Context, o Options) (*Image, error) {
	key, err := Key()
	if err != nil {
		return nil, err
	}
	entry := filepath.Join(o.Cache, key)
	if !o.Rebuild {
		if image, err := open(entry); !errors.Is(err, fs.ErrNotExist) {
			return image, err
		}
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("making the image needs root: it holds device nodes and files of several owners")
	}
	started := time.Now()
	unlock, err := lock(ctx, o)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if image, err := open(entry); err == nil && (!o.Rebuild || madeSince(entry, started)) {
		return image, nil
	}
	if err := cook(ctx, o, entry); err != nil {
		return nil, err
	}
	return open(entry)
}

// open reads a cache entry. It appears as a whole or not at all, so one that is
// there is complete.
func open(entry string) (*Image, error) {
	content, err := os.ReadFile(filepath.Join(entry, layersName))
	if err != nil {
		return nil, err
	}
	image := &Image{Tar: filepath.Join(entry, tarName), Rootfs: filepath.Join(entry, rootfsName)}
	if err := json.Unmarshal(content, &image.Layers); err != nil {
		return nil, fmt.Errorf("reading %s: %w", filepath.Join(entry, layersName), err)
	}
	return image, nil
}

// madeSince reports whether another process has made the entry while this one
// waited for the lock.
func madeSince(entry string, t time.Time) bool {
	info, err := os.Stat(filepath.Join(entry, layersName))
	return err == nil && info.ModTime().After(t)
}

// cook makes the image in a temporary directory and moves it to entry.
func cook(ctx context.Context, o Options, entry string) (err error) {
	k, err := newKitchen(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, k.close()) }()
	made, err := k.image(ctx)
	if ctx.Err() != nil {
		return ctx.Err() // whatever was killed has nothing to say
	}
	if err != nil {
		return k.explain(err)
	}
	// A rename cannot replace a directory with something in it.
	if err := os.Rename(entry, filepath.Join(k.dir, "replaced")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Rename(made, entry)
}
