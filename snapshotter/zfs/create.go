package zfs

import "context"

// Create creates a file system with native and user properties, and does not mount it.
// It is for setting up a base; clones inherit their properties.
func (c *Client) Create(ctx context.Context, filesystem string, props map[string]string) error {
	if err := checkFilesystem("create", filesystem); err != nil {
		return err
	}
	return c.driver.create(ctx, filesystem, props)
}

// Mount mounts a file system at its mountpoint. A mounted file system stays
// mounted.
func (c *Client) Mount(ctx context.Context, filesystem string) error {
	if err := checkFilesystem("mount", filesystem); err != nil {
		return err
	}
	return c.driver.mount(ctx, filesystem)
}
