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
	// SUSPENDED, as zpool says it.
	Health string
	// Suspended tells that I/O has stopped: changes, and reads that miss the
	// cache, wait until an administrator clears the pool. The fields below
	// are then what was last known, or 0.
	Suspended bool
	ReadOnly  bool
	Size      uint64 // bytes of all vdevs, parity included
	Allocated uint64 // bytes in use of these
	Free      uint64 // bytes not in use, the reserve included that datasets cannot use
	Freeing   uint64 // bytes of destroyed datasets that will come back
	Leaked    uint64 // bytes that cannot come back, after damage
	// Checkpoint tells that there is a checkpoint, or that one is being
	// discarded. While there is, what is freed does not come back, and
	// Freeing says 0.
	Checkpoint      bool
	CheckpointBytes uint64 // bytes freed since that the checkpoint keeps
}

// Pool answers the state of a pool. It opens no dataset. ENOENT where there is
// no such pool.
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
	// A suspended pool's properties can lie behind a lock that a stopped
	// transaction group holds.
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
	answer, ok := c.answer()
	if !ok {
		return syscall.EIO
	}
	r := nvlist.NewReader(answer)
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
	answer, _ := c.answer()
	r := nvlist.NewReader(answer)
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

// Sync waits until what was changed before is on disk: the open transaction
// group is written. With force even when nothing changed.
func (h *Handle) Sync(ctx context.Context, pool string, force bool) error {
	c := newCommand(pool)
	defer c.free()
	if err := c.setIn(nvlist.List{{Name: "force", Value: force}}); err != nil {
		return fail("sync", pool, err)
	}
	return fail("sync", pool, h.change(ctx, reqPoolSync, c))
}

// activityFree is the freeing of what was destroyed.
const (
	activityFree = 1
)

// WaitFree waits until no destroyed dataset is being freed any more, clones'
// livelists included, and tells whether it waited at all. What was freed can
// be allocated again two transaction groups later: sync the pool after it.
// Ends with ctx.
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
	answer, _ := c.answer()
	for r := nvlist.NewReader(answer); r.Next(); {
		if string(r.Name()) == "wait_waited" {
			waited, _ = r.Bool()
		}
	}
	return waited, nil
}
