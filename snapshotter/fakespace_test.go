package snapshotter

import (
	"context"
	"strconv"
	"strings"

	"github.com/zfstpl/zfstpl/snapshotter/inspect"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// defaultPoolSize is the size that a pool without a size reports.
const defaultPoolSize = 1 << 40

// isFull reports whether there is no space for a snapshot or a clone.
func (s *fakeState) isFull() bool { return s.full || s.size > 0 && s.below("tank") >= s.size }

// below returns the bytes of a file system and its descendants.
func (s *fakeState) below(name string) (total uint64) {
	for other := range s.fs {
		if other == name || strings.HasPrefix(other, name+"/") {
			total += s.used(other)
		}
	}
	return total
}

func (p *fakePool) Space(_ context.Context, name string) (space zfs.Space, err error) {
	err = p.call("space", func() error {
		return p.read(func(s *fakeState) error {
			fs, ok := s.fs[name]
			if !ok {
				return fakeError("space", name, zfs.ErrNotFound)
			}
			content, _ := s.contentOf(name)
			size := s.size
			if size == 0 {
				size = defaultPoolSize
			}
			space = zfs.Space{Used: s.below(name), Referenced: uint64(len(content)), Available: size - min(size, s.below("tank"))}
			space.Quota, _ = strconv.ParseUint(fs.native["quota"], 10, 64)
			for _, above := range inspect.Ancestors(name) { // like ZFS
				if quota, err := strconv.ParseUint(s.fs[above].native["quota"], 10, 64); err == nil {
					space.Available = min(space.Available, quota-min(quota, s.below(above)))
				}
			}
			return nil
		})
	})
	return space, err
}

func (p *fakePool) State(context.Context) (state zfs.PoolState, err error) {
	err = p.call("state", func() error {
		return p.read(func(s *fakeState) error {
			state.Checkpoint, state.Suspended = s.checkpoint, s.suspended
			return nil
		})
	})
	return state, err
}

func (p *fakePool) WaitFreed(context.Context) error {
	return p.call("wait", func() error { return p.read(func(*fakeState) error { return nil }) })
}
