package ioctl

import (
	"context"
	"errors"
	"strings"
	"syscall"
)

// Snapshot is the fixed part of a snapshot's state, as in a listing.
type Snapshot struct {
	Name      string // the short name, after the @
	GUID      uint64
	CreateTXG uint64 // transaction group that created it
	Clones    uint64 // how many file systems have it as their origin
}

// ListSnapshots returns the snapshots of a file system, in no order. The kernel opens
// no snapshot for it, so a snapshot with thousands of clones costs no more than
// others. A snapshot that is created or destroyed meanwhile may be missing. Release
// 2.1 returns the names only.
func (h *Handle) ListSnapshots(ctx context.Context, filesystem string) ([]Snapshot, error) {
	const op = "list snapshots"
	c := newCommand(filesystem)
	defer c.free()
	c.simple = true
	var list []Snapshot
	for {
		err := h.read(ctx, reqSnapshotListNext, c)
		if errors.Is(err, syscall.ESRCH) {
			break
		}
		if err != nil {
			return nil, fail(op, filesystem, err)
		}
		_, short, _ := strings.Cut(c.text(atName, nameSize), "@")
		list = append(list, Snapshot{
			Name:      short,
			GUID:      c.get(atStats + statsGUID),
			CreateTXG: c.get(atStats + statsCreateTXG),
			Clones:    c.get(atStats + statsClones),
		})
		c.cookie = c.get(atCookie)
	}
	// A file system that does not exist looks like one without snapshots.
	if len(list) == 0 {
		if _, err := h.FastStat(ctx, filesystem); err != nil {
			return nil, fail(op, filesystem, errors.Unwrap(err))
		}
	}
	return list, nil
}
