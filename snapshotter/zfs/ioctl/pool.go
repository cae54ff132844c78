package ioctl

import (
	"context"

	"github.com/zfstpl/zfstpl/snapshotter/zfs/nvlist"
)

// Pool is the state of a pool.
type Pool struct {
	// Suspended is true if I/O has stopped: changes, and reads that miss the
	// cache, wait until an administrator clears the pool. Freeing is then 0.
	Suspended bool
	Freeing   uint64 // bytes of destroyed datasets that are being freed
	// Checkpoint is true if the pool has a checkpoint or is discarding one.
	// Meanwhile nothing is freed, and Freeing is 0.
	Checkpoint bool
}

// Pool returns the state of a pool. It opens no dataset. It fails with ENOENT if the
// pool does not exist.
func (h *Handle) Pool(ctx context.Context, name string) (p Pool, err error) {
	const op = "pool"
	c := newCommand(name)
	defer c.free()
	c.wantOut = true
	if err := h.read(ctx, reqPoolStats, c); err != nil {
		return Pool{}, fail(op, name, err)
	}
	if err := p.takeConfig(c); err != nil {
		return Pool{}, fail(op, name, err)
	}
	// In a suspended pool, the lock of the properties can be held by a stopped
	// transaction group.
	if p.Suspended {
		return p, nil
	}
	if err := h.read(ctx, reqPoolGetProps, c); err != nil {
		return Pool{}, fail(op, name, err)
	}
	r := c.reader()
	for r.Next() {
		if string(r.Name()) == "freeing" {
			p.Freeing = property(r).number
		}
	}
	return p, fail(op, name, r.Err())
}

// takeConfig reads the pool's configuration and the root vdev's statistics.
func (p *Pool) takeConfig(c *command) error {
	const state = 0 // in pool_checkpoint_stat_t
	r := c.reader()
	for r.Next() {
		switch string(r.Name()) {
		case "suspended":
			p.Suspended = true
		case "vdev_tree":
			if !r.Enter() {
				continue
			}
			for r.Next() {
				if string(r.Name()) == "checkpoint_stats" {
					checkpoint, _ := r.Uint64At(state)
					p.Checkpoint = checkpoint != 0
				}
			}
			r.Leave()
		}
	}
	return r.Err()
}

// Sync waits until the open transaction group is on disk. It writes one even if nothing
// has changed.
func (h *Handle) Sync(ctx context.Context, pool string) error {
	c := newCommand(pool)
	defer c.free()
	if err := c.setIn(nvlist.List{{Name: "force", Value: true}}); err != nil {
		return fail("sync", pool, err)
	}
	return fail("sync", pool, h.change(ctx, reqPoolSync, c))
}

// WaitFree waits until no destroyed dataset is being freed, including the livelists of
// clones, and reports whether it waited at all. A freed block can be allocated again
// two transaction groups later: sync the pool afterwards. WaitFree ends with ctx.
func (h *Handle) WaitFree(ctx context.Context, pool string) (waited bool, err error) {
	const activityFree int32 = 1
	c := newCommand(pool)
	defer c.free()
	if err := c.setIn(nvlist.List{{Name: "wait_activity", Value: activityFree}}); err != nil {
		return false, fail("wait", pool, err)
	}
	c.wantOut = true
	if err := h.wait(ctx, reqWait, c, nil); err != nil {
		return false, fail("wait", pool, err)
	}
	for r := c.reader(); r.Next(); {
		if string(r.Name()) == "wait_waited" {
			waited, _ = r.Bool()
		}
	}
	return waited, nil
}
