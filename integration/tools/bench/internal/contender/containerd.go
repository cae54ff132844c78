//go:build linux

package contender

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/snapshots"
)

// Namespace is containerd's namespace that everything is in.
const Namespace = "bench"

// Collector returns a function that has containerd collect its garbage and
// waits for the end of it: the removal of a lease can be asked to.
func Collector(c *client.Client) func(context.Context) error {
	return func(ctx context.Context) error {
		service := c.LeasesService()
		lease, err := service.Create(ctx, leases.WithRandomID())
		if err != nil {
			return err
		}
		return service.Delete(ctx, lease, leases.SynchronousDelete)
	}
}

// Cleaner returns a function that has a snapshotter without a containerd clean
// up.
func Cleaner(sn snapshots.Snapshotter) func(context.Context) error {
	return func(ctx context.Context) error { return sn.(snapshots.Cleaner).Cleanup(ctx) }
}

// CountEntries returns a function that counts what is in directories.
func CountEntries(dirs ...string) func(context.Context) (int, error) {
	return func(context.Context) (int, error) {
		total := 0
		for _, dir := range dirs {
			entries, err := os.ReadDir(dir)
			if err != nil {
				return 0, err
			}
			total += len(entries)
		}
		return total, nil
	}
}

// Unpack imports an image from an archive and unpacks it with a snapshotter.
func Unpack(ctx context.Context, c *client.Client, archive, snapshotter string) (err error) {
	file, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	images, err := c.Import(ctx, file)
	if err != nil {
		return err
	}
	for _, image := range images {
		if err := client.NewImage(c, image).Unpack(ctx, snapshotter); err != nil {
			return fmt.Errorf("unpacking %s: %w", image.Name, err)
		}
	}
	return nil
}
