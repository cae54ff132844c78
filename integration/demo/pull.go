//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"

	"github.com/zfstpl/zfstpl/integration/image/recipe"
	"github.com/zfstpl/zfstpl/integration/registry"
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

// pullAgain pulls what was pulled, used and removed: its layers are in the pool.
func (t *tour) pullAgain(ctx context.Context) error {
	fetched, err := t.pull(ctx)
	if err != nil {
		return err
	}
	if fetched != (registry.Fetched{}) {
		return fmt.Errorf("%d layers were fetched, though they are in the pool", fetched.Layers)
	}
	if err := t.runFirst(ctx); err != nil {
		return err
	}
	return t.removeAll(ctx)
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
func (t *tour) showWarm(ctx context.Context) error {
	_, err := t.do(ctx, "zfstpl", "df", "--dataset", t.dataset())
	return err
}
