package zfs

import "context"

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
func (c *Client) WaitFreed(ctx context.Context) error { return c.driver.waitFreed(ctx) }
