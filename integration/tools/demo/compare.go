//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/opencontainers/image-spec/identity"

	"github.com/zfstpl/zfstpl/integration/tools/image/manifest"
	"github.com/zfstpl/zfstpl/integration/tools/image/recipe"
)

// compare mounts the image read-only, as a view, and compares it path by path
// with the tree it was built from.
func (t *tour) compare(ctx context.Context) error {
	f, err := os.Open(t.manifest)
	if err != nil {
		return err
	}
	defer f.Close()
	want, err := manifest.Read(f)
	if err != nil {
		return err
	}
	var got []manifest.Entry
	err = t.withClient(ctx, func(ctx context.Context, c *client.Client) error {
		return t.withView(ctx, c, recipe.Reference, func(root string) error {
			got, err = manifest.Walk(root)
			return err
		})
	})
	if err != nil {
		return err
	}
	if differences := manifest.Compare(want, got); differences != nil {
		return fmt.Errorf("%d paths differ from what was built:\n%s", len(differences), strings.Join(differences, "\n"))
	}
	t.say("all %d paths are what was built", len(want))
	return nil
}

// withView mounts an image for the time of a call.
func (t *tour) withView(ctx context.Context, c *client.Client, name string, f func(root string) error) (err error) {
	image, err := c.GetImage(ctx, name)
	if err != nil {
		return err
	}
	diffIDs, err := image.RootFS(ctx)
	if err != nil {
		return err
	}
	service := c.SnapshotService(t.snapshotterName())
	mounts, err := service.View(ctx, "look", identity.ChainID(diffIDs).String())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, service.Remove(ctx, "look")) }()
	root := t.path("look")
	if err := os.Mkdir(root, 0o700); err != nil {
		return err
	}
	for _, m := range mounts {
		t.command("mount", "-t", m.Type, "-o", strings.Join(m.Options, ","), m.Source, root)
	}
	if err := mount.All(mounts, root); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, mount.UnmountAll(root, 0)) }()
	return f(root)
}
