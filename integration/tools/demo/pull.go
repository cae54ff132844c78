//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"

	"github.com/zfstpl/zfstpl/integration/registry"
	"github.com/zfstpl/zfstpl/integration/tools/image/recipe"
)

// startRegistry serves the image of the tour on the loopback device.
func (t *tour) startRegistry() error {
	r, err := registry.OfLayout(t.image)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: r, ReadHeaderTimeout: patience}
	go func() { _ = server.Serve(listener) }() // until it is closed
	t.registry, t.closeRegistry = r, server.Close
	t.reference = listener.Addr().String() + "/zfstpl/demo:1"
	return nil
}

func (t *tour) pullFirst(ctx context.Context) error {
	if err := t.startRegistry(); err != nil {
		return err
	}
	fetched, err := t.pull(ctx)
	if err == nil && fetched.Layers == 0 {
		err = errors.New("no layer was fetched")
	}
	if err != nil {
		return err
	}
	_, err = t.do(ctx, "ctr", "images", "ls", "-q")
	return err
}

// pullAgain pulls what was pulled, used and removed: its layers are in the pool. They
// are fetched, so that the image is complete, and none is unpacked.
func (t *tour) pullAgain(ctx context.Context) error {
	before, err := t.templates(ctx)
	if err != nil {
		return err
	}
	fetched, err := t.pull(ctx)
	if err != nil {
		return err
	}
	after, err := t.templates(ctx)
	switch {
	case err != nil:
		return err
	case fetched.Layers == 0:
		return errors.New("no layer was fetched, and the image is not complete")
	case before != after:
		return fmt.Errorf("the templates were\n%s\nand are\n%s", before, after)
	}
	check, err := t.do(ctx, "ctr", "images", "check", "--snapshotter", t.snapshotterName(), "name=="+recipe.Reference)
	if err != nil {
		return err
	}
	if !strings.Contains(check, " complete ") {
		return fmt.Errorf("%s is not complete", recipe.Reference)
	}
	if err := t.runFirst(ctx); err != nil {
		return err
	}
	return t.removeAll(ctx)
}

// templates are what is in the pool of images: each by what makes it this very one.
func (t *tour) templates(ctx context.Context) (string, error) {
	return t.ask(ctx, "zfs", "list", "-Hp", "-r", "-t", "filesystem", "-o", "name,guid", t.dataset()+"/storage")
}

// pull pulls the image and says what moved.
func (t *tour) pull(ctx context.Context) (registry.Fetched, error) {
	t.say("as `nerdctl pull %s` does it, from a registry that this program is itself", t.reference)
	started := time.Now()
	err := t.withClient(ctx, func(ctx context.Context, c *client.Client) error {
		image, err := c.Pull(ctx, t.reference, client.WithPullUnpack, client.WithPullSnapshotter(t.snapshotterName()))
		if err != nil {
			return err
		}
		_, err = c.ImageService().Create(ctx, images.Image{Name: recipe.Reference, Target: image.Target()})
		return err
	})
	fetched := t.registry.Fetched()
	if err == nil {
		t.say("%d layers, %s, were fetched in %s", fetched.Layers, mebibytes(fetched.Bytes), seconds(time.Since(started)))
	}
	return fetched, err
}

// showWarm shows what is left of an image that is gone.
func (t *tour) showCached(ctx context.Context) error {
	_, err := t.do(ctx, "zfstpl", "df", "--dataset", t.dataset())
	return err
}
