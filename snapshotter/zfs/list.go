package zfs

import "context"

// List returns root and every file system below it, in no particular order, with the
// user properties that Open was given the prefix of. It fails with ErrNotFound if root
// does not exist.
func (c *Client) List(ctx context.Context, root string) ([]Dataset, error) {
	if err := checkFilesystem("list", root); err != nil {
		return nil, err
	}
	return c.driver.list(ctx, root, c.prefix)
}

// Space is the space of a file system, in bytes. ZFS updates it with every txg, some
// seconds after a write.
type Space struct {
	Used       uint64 // used by it, its snapshots and everything below it alone
	Referenced uint64 // referred to by it, including shared bytes
	Available  uint64 // what can still be written, within all quotas
	Quota      uint64 // the quota of it and everything below it, or 0
}

// Space returns the space of a file system.
func (c *Client) Space(ctx context.Context, filesystem string) (Space, error) {
	if err := checkFilesystem("space", filesystem); err != nil {
		return Space{}, err
	}
	return c.driver.space(ctx, filesystem)
}

// Written returns how many bytes of a file system were written since an earlier
// snapshot, such as its origin. ZFS updates the number with every txg.
func (c *Client) Written(ctx context.Context, filesystem, snapshot string) (uint64, error) {
	if err := checkFilesystem("written", filesystem); err != nil {
		return 0, err
	}
	if err := checkSnapshot("written", snapshot); err != nil {
		return 0, err
	}
	return c.driver.written(ctx, filesystem, snapshot)
}

// Property is a property of a dataset. Local is true if it is set on the dataset, and
// false if it is inherited or a default.
type Property struct {
	Value string
	Local bool
}

// Properties returns some native and user properties of a file system.
func (c *Client) Properties(ctx context.Context, filesystem string, names ...string) (map[string]Property, error) {
	if err := checkFilesystem("get", filesystem); err != nil {
		return nil, err
	}
	return c.driver.properties(ctx, filesystem, names)
}
