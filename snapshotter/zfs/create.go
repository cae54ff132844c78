package zfs

import "context"

// Create makes a file system with native and user properties, and mounts nothing. It is
// for setting up a base; clones inherit what they need from there.
func (c *Client) Create(ctx context.Context, filesystem string, props map[string]string) error {
	if err := checkFilesystem("create", filesystem); err != nil {
		return err
	}
	return c.driver.create(ctx, filesystem, props)
}

// Mount mounts a file system where its mountpoint property says. One that is
// mounted already stays so.
func (c *Client) Mount(ctx context.Context, filesystem string) error {
	if err := checkFilesystem("mount", filesystem); err != nil {
		return err
	}
	return c.driver.mount(ctx, filesystem)
}
