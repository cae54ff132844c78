package zfs

import (
	"context"
	"maps"
	"slices"
)

// Create makes a file system with native and user properties. It is for
// setting up a base; clones inherit what they need from there.
func (c *Client) Create(ctx context.Context, filesystem string, props map[string]string) error {
	if err := checkFilesystem("create", filesystem); err != nil {
		return err
	}
	args := []string{"create"}
	for _, name := range slices.Sorted(maps.Keys(props)) {
		args = append(args, "-o", name+"="+props[name])
	}
	_, err := c.run(ctx, "create", filesystem, nil, append(args, filesystem)...)
	return err
}

// Mount mounts a file system where its mountpoint property says. One that is
// mounted already stays so.
func (c *Client) Mount(ctx context.Context, filesystem string) error {
	if err := checkFilesystem("mount", filesystem); err != nil {
		return err
	}
	_, err := c.run(ctx, "mount", filesystem, nil, "mount", filesystem)
	return err
}
