//go:build linux

package main

import (
	"context"
	"errors"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
)

// withClient calls f with a connection to the tour's containerd, in its
// namespace and under a lease: what f makes is safe from the garbage collector
// until f has made it part of something.
func (t *tour) withClient(ctx context.Context, f func(context.Context, *client.Client) error) (err error) {
	c, err := client.New(t.containerdSocket())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	ctx, done, err := c.WithLease(namespaces.WithNamespace(ctx, t.name))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done(ctx)) }()
	return f(ctx, c)
}
