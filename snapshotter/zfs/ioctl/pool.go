package ioctl

import (
	"context"
	"syscall"

	"github.com/zfstpl/zfstpl/snapshotter/zfs/nvlist"
)

// Pool is the state of a pool.
type Pool struct {
	Name string
	GUID uint64
	// Health is ONLINE, DEGRADED, FAULTED, OFFLINE, REMOVED, UNAVAIL or
	// SUSPENDED, as in zpool.
	Health string
	// Suspended is true if I/O has stopped: changes, and reads that miss the
	// cache, wait until an administrator clears the pool. The fields below then
	// have their last known values, or 0.
	Suspended bool
	ReadOnly  bool
	Size      uint64 // bytes of all vdevs, parity included
	Allocated uint64 // bytes of Size in use
	Free      uint64 // bytes not in use, including the reserve that datasets cannot use
	Freeing   uint64 // bytes of destroyed datasets that are being freed
	Leaked    uint64 // bytes that cannot be freed because of damage
	// Checkpoint is true if the pool has a checkpoint or is discarding one.
	// Meanwhile nothing is freed, and Freeing is 0.
	Checkpoint      bool
	CheckpointBytes uint64 // bytes freed since, which the checkpoint keeps
}

// Pool returns the state of a pool. It opens no dataset. It fails with ENOENT if the
// pool does not exist.
func (h *Handle) Pool(ctx context.Context, name string) (Pool, error) {
	const op = "pool"
	c := newCommand(name)
	defer c.free()
	c.wantOut = true
	if err := h.read(ctx, reqPoolStats, c); err != nil {
		return Pool{}, fail(op, name, err)
	}
	p := Pool{Name: name}
	if err := p.takeConfig(c); err != nil {
		return Pool{}, fail(op, name, err)
	}
	// In a suspended pool, the lock of the properties can be held by a stopped
	// transaction group.
	if p.Suspended {
		return p, nil
	}
	c.params = params{name: name, wantOut: true}
	if err := h.read(ctx, reqPoolGetProps, c); err != nil {
		return Pool{}, fail(op, name, err)
	}
	return p, fail(op, name, p.takeProperties(c))
}

// takeConfig reads the pool's configuration and the root vdev's statistics.
func (p *Pool) takeConfig(c *command) error {
	reply, ok := c.reply()
	if !ok {
		return syscall.EIO
	}
	r := nvlist.NewReader(reply)
	for r.Next() {
		switch string(r.Name()) {
		case "pool_guid":
			p.GUID, _ = r.Uint64()
		case "suspended":
			p.Suspended = true
		case "vdev_tree":
			if r.Enter() {
				p.takeRootVdev(r)
				r.Leave()
			}
		}
	}
	if p.Suspended {
		p.Health = "SUSPENDED"
	}
	return r.Err()
}

func (p *Pool) takeRootVdev(r *nvlist.Reader) {
	const (
		vdevState, vdevAllocated, vdevSize = 1, 3, 4 // in vdev_stat_t
		checkpointState                    = 0       // in pool_checkpoint_stat_t
		checkpointSpace                    = 2
	)
	for r.Next() {
		switch string(r.Name()) {
		case "vdev_stats":
			state, _ := r.Uint64At(vdevState)
			p.Health = healthName(state)
			p.Allocated, _ = r.Uint64At(vdevAllocated)
			p.Size, _ = r.Uint64At(vdevSize)
			p.Free = p.Size - min(p.Size, p.Allocated)
		case "checkpoint_stats":
			state, _ := r.Uint64At(checkpointState)
			p.Checkpoint = state != 0
			p.CheckpointBytes, _ = r.Uint64At(checkpointSpace)
		}
	}
}

func healthName(state uint64) string {
	switch state {
	case 2:
		return "OFFLINE"
	case 3:
		return "REMOVED"
	case 5:
		return "FAULTED"
	case 6:
		return "DEGRADED"
	case 7:
		return "ONLINE"
	default:
		return "UNAVAIL"
	}
}

func (p *Pool) takeProperties(c *command) error {
	reply, _ := c.reply()
	r := nvlist.NewReader(reply)
	for r.Next() {
		switch string(r.Name()) {
		case "size":
			p.Size = property(r).number
		case "allocated":
			p.Allocated = property(r).number
		case "free":
			p.Free = property(r).number
		case "freeing":
			p.Freeing = property(r).number
		case "leaked":
			p.Leaked = property(r).number
		case "readonly":
			p.ReadOnly = property(r).number != 0
		}
	}
	return r.Err()
}

// Sync waits until earlier changes are on disk, that is, until the open transaction
// group is written. With force it writes one even if nothing has changed.
func (h *Handle) Sync(ctx context.Context, pool string, force bool) error {
	c := newCommand(pool)
	defer c.free()
	if err := c.setIn(nvlist.List{{Name: "force", Value: force}}); err != nil {
		return fail("sync", pool, err)
	}
	return fail("sync", pool, h.change(ctx, reqPoolSync, c))
}

// activityFree is the activity of freeing destroyed datasets.
const activityFree = 1

// WaitFree waits until no destroyed dataset is being freed, including the livelists of
// clones, and reports whether it waited at all. A freed block can be allocated again
// two transaction groups later: sync the pool afterwards. WaitFree ends with ctx.
func (h *Handle) WaitFree(ctx context.Context, pool string) (waited bool, err error) {
	return h.waitActivity(ctx, pool, activityFree)
}

func (h *Handle) waitActivity(ctx context.Context, pool string, activity int32) (waited bool, err error) {
	c := newCommand(pool)
	defer c.free()
	if err := c.setIn(nvlist.List{{Name: "wait_activity", Value: activity}}); err != nil {
		return false, fail("wait", pool, err)
	}
	c.wantOut = true
	if err := h.wait(ctx, reqWait, c, nil); err != nil {
		return false, fail("wait", pool, err)
	}
	reply, _ := c.reply()
	for r := nvlist.NewReader(reply); r.Next(); {
		if string(r.Name()) == "wait_waited" {
			waited, _ = r.Bool()
		}
	}
	return waited, nil
}
