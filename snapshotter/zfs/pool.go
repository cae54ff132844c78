package zfs

import "context"

// PoolState is what a pool says of room in it.
type PoolState struct {
	// Freeing is the bytes of destroyed file systems that will come back.
	Freeing uint64
	// Checkpoint tells that there is one: while there is, nothing comes back of
	// what is destroyed, and Freeing says 0.
	Checkpoint bool
	// Suspended tells that the pool has lost its disks and waits for an
	// administrator. The others then are what was last known.
	Suspended bool
}

// State answers the state of the client's pool.
func (c *Client) State(ctx context.Context) (PoolState, error) { return c.driver.poolState(ctx) }

// deferredGroups is for how many transaction groups a block that was freed is
// not given to anybody.
const deferredGroups = 2

// WaitFreed waits until what was destroyed before has come back and can be
// written again. It may take long: destroying is quick, freeing is not. Ends with
// ctx.
func (c *Client) WaitFreed(ctx context.Context) error { return c.driver.waitFreed(ctx) }
