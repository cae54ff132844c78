package zfs

import "context"

// List answers root and every file system below it, in no particular order,
// with those user properties that Open asked for. It fails with ErrNotFound
// where there is no root.
func (c *Client) List(ctx context.Context, root string) ([]Dataset, error) {
	if err := checkFilesystem("list", root); err != nil {
		return nil, err
	}
	return c.driver.list(ctx, root, c.prefix)
}

// Space is what a file system occupies, in bytes. ZFS updates the figures with
// every txg, some seconds behind a writer.
type Space struct {
	Used       uint64 // what only it, its snapshots and all below it hold
	Referenced uint64 // what is reachable from it, shared or not
	Available  uint64 // what could still be written, quotas above it included
	Quota      uint64 // what it and all below it may hold, or 0
}

// Space answers what a file system occupies.
func (c *Client) Space(ctx context.Context, filesystem string) (Space, error) {
	if err := checkFilesystem("space", filesystem); err != nil {
		return Space{}, err
	}
	return c.driver.space(ctx, filesystem)
}

// Written answers how many bytes a file system holds that were written since a
// snapshot before it, such as its origin. ZFS updates the figure with every txg.
func (c *Client) Written(ctx context.Context, filesystem, snapshot string) (uint64, error) {
	if err := checkFilesystem("written", filesystem); err != nil {
		return 0, err
	}
	if err := checkSnapshot("written", snapshot); err != nil {
		return 0, err
	}
	return c.driver.written(ctx, filesystem, snapshot)
}

// Property is a property of a dataset: its value, and whether it is set there
// and not inherited or a default.
type Property struct {
	Value string
	Local bool
}

// Properties answers some properties of one file system, native or of users.
func (c *Client) Properties(ctx context.Context, filesystem string, names ...string) (map[string]Property, error) {
	if err := checkFilesystem("get", filesystem); err != nil {
		return nil, err
	}
	return c.driver.properties(ctx, filesystem, names)
}
