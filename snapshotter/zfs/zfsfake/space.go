package zfsfake

import (
	"context"
	"strconv"
	"strings"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// defaultPoolSize is the size that a pool without a size reports.
const defaultPoolSize = 1 << 40

// isFull reports whether there is no space for a snapshot or a clone.
func (s *State) isFull() bool { return s.Full || s.Size > 0 && s.Below("tank") >= s.Size }

// Below returns the bytes of a file system and its descendants.
func (s *State) Below(name string) (total uint64) {
	for other := range s.FS {
		if other == name || strings.HasPrefix(other, name+"/") {
			total += s.used(other)
		}
	}
	return total
}

func (p *Pool) Space(_ context.Context, name string) (space zfs.Space, err error) {
	err = p.call(Space, []string{name}, func() error {
		return p.read(func(s *State) error {
			fs, ok := s.FS[name]
			if !ok {
				return Error("space", name, zfs.ErrNotFound)
			}
			content, _ := s.ContentOf(name)
			size := s.Size
			if size == 0 {
				size = defaultPoolSize
			}
			space = zfs.Space{Used: s.Below(name), Referenced: uint64(len(content)), Available: size - min(size, s.Below("tank"))}
			space.Quota, _ = strconv.ParseUint(fs.Native["quota"], 10, 64)
			for _, above := range ancestors(name) { // like ZFS
				if quota, err := strconv.ParseUint(s.FS[above].Native["quota"], 10, 64); err == nil {
					space.Available = min(space.Available, quota-min(quota, s.Below(above)))
				}
			}
			return nil
		})
	})
	return space, err
}

func (p *Pool) State(context.Context) (state zfs.PoolState, err error) {
	err = p.call(PoolState, []string{"tank"}, func() error {
		return p.read(func(s *State) error {
			state.Checkpoint, state.Suspended = s.Checkpoint, s.Suspended
			return nil
		})
	})
	return state, err
}

func (p *Pool) WaitFreed(context.Context) error {
	return p.call(WaitFreed, []string{"tank"}, func() error { return p.read(func(*State) error { return nil }) })
}

// ancestors returns a dataset and its ancestors, up to the pool's root dataset.
func ancestors(name string) []string {
	names := []string{name}
	for i := strings.LastIndexByte(name, '/'); i >= 0; i = strings.LastIndexByte(name, '/') {
		name = name[:i]
		names = append(names, name)
	}
	return names
}
