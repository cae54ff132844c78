package zfs

import (
	"context"
	"slices"
	"time"
)

// Dataset is a file system in a listing.
type Dataset struct {
	Name       string
	Origin     string // the snapshot it is a clone of, or ""
	GUID       uint64
	CreateTXG  uint64 // the transaction group that created it
	Created    time.Time
	Used       uint64 // bytes that destroying it and its snapshots would free
	Refer      uint64 // bytes that it refers to, including shared ones
	Snapshots  []string
	Mountpoint string
	Props      map[string]string // user properties that are set locally; see List
}

// HasSnapshot reports whether the dataset has a snapshot with that short name.
func (d Dataset) HasSnapshot(name string) bool {
	return slices.Contains(d.Snapshots, name)
}

// List returns root and every file system below it, in no particular order, with the
// user properties that Open was given the prefix of. It fails with ErrNotFound if root
// does not exist.
func (c *Client) List(ctx context.Context, root string) ([]Dataset, error) {
	if err := checkFilesystem("list", root); err != nil {
		return nil, err
	}
	defer c.around("list")()
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
	defer c.around("space")()
	return c.driver.space(ctx, filesystem)
}

// SyncDisabled reports whether the property sync of a file system is "disabled": what programs
// synchronise there is not durable then.
func (c *Client) SyncDisabled(ctx context.Context, filesystem string) (bool, error) {
	if err := checkFilesystem("get", filesystem); err != nil {
		return false, err
	}
	defer c.around("get")()
	return c.driver.syncDisabled(ctx, filesystem)
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
	defer c.around("written")()
	return c.driver.written(ctx, filesystem, snapshot)
}
