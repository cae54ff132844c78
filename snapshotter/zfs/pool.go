package zfs

import (
	"context"
	"strings"
)

// PoolState is the state of a pool.
type PoolState struct {
	// Freeing is how many bytes of destroyed file systems are being freed.
	Freeing uint64
	// Checkpoint is true if the pool has a checkpoint. Then destroying frees no space,
	// and Freeing is 0.
	Checkpoint bool
	// Suspended is true if the pool has lost its disks and waits for an administrator.
	// The other fields then have their last known values.
	Suspended bool
}

// State returns the state of the client's pool.
func (c *Client) State(ctx context.Context) (PoolState, error) { return c.driver.poolState(ctx) }

// deferredGroups is for how many transaction groups ZFS does not reuse a freed block.
const deferredGroups = 2

// WaitFreed waits until the space of what was destroyed before can be written again,
// or until ctx ends. That may take long: destroying is fast, freeing is not.
func (c *Client) WaitFreed(ctx context.Context) error {
	defer c.around("wait")()
	return c.driver.waitFreed(ctx)
}

// featurePrefix begins the names of the pool properties of features.
const featurePrefix = "feature@"

// Features reports which of the named features are enabled in the client's pool. A
// pool lacks a feature that its "compatibility" excludes, or that is newer than the
// pool.
func (c *Client) Features(ctx context.Context, names ...string) (map[string]bool, error) {
	properties := make([]string, len(names))
	for i, name := range names {
		properties[i] = featurePrefix + name
	}
	states, err := c.poolProperties(ctx, properties...)
	if err != nil {
		return nil, err
	}
	enabled := make(map[string]bool)
	for name, state := range states {
		enabled[strings.TrimPrefix(name, featurePrefix)] = state == "enabled" || state == "active"
	}
	return enabled, nil
}

// Altroot returns the directory below which the pool is imported ('zpool import -R'),
// or "". ZFS mounts a file system at its mountpoint below that directory. The
// mountpoint that ZFS shows begins with the directory; the one that is set does not.
func (c *Client) Altroot(ctx context.Context) (string, error) {
	const altroot = "altroot"
	found, err := c.poolProperties(ctx, altroot)
	if err != nil || found[altroot] == "-" {
		return "", err
	}
	return found[altroot], nil
}

func (c *Client) poolProperties(ctx context.Context, names ...string) (map[string]string, error) {
	out, err := c.command().exec(ctx, "zpool", "get", c.pool, nil, "get", "-Hp", "-o", "property,value", strings.Join(names, ","), c.pool)
	if err != nil {
		return nil, err
	}
	found := make(map[string]string)
	for _, row := range lines(out) {
		if len(row) == 2 {
			found[row[0]] = row[1]
		}
	}
	return found, nil
}
