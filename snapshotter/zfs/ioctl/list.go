package ioctl

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
)

// listers bounds how many calls a listing makes at once. The kernel only reads
// for them, and does not make one wait for another.
func listers() int { return min(2*runtime.GOMAXPROCS(0), 16) }

// ListFilesystems answers root and the file systems below it, in no order but
// parents before their children. One that comes, goes or is renamed meanwhile may
// be there or not; the others are there once. Volumes are left out, and what a
// receive has not finished.
//
// It takes one call for each file system, in which the kernel opens it, and one
// more for each that it looks below: root, what lies directly below that, and of
// all others those that have bytes below them. So a clone that nobody has written
// to is not found three levels down or deeper.
func (h *Handle) ListFilesystems(ctx context.Context, root string) ([]Dataset, error) {
	first, err := h.Stat(ctx, root)
	if err != nil {
		return nil, err
	}
	list, level := []Dataset{first}, []Dataset{first}
	for depth := 0; len(level) > 0; depth++ {
		var parents []string
		for _, d := range level {
			if depth < 2 || d.below > 0 {
				parents = append(parents, d.Name)
			}
		}
		if level, err = h.listBelow(ctx, parents); err != nil {
			return nil, err
		}
		list = append(list, level...)
	}
	return list, nil
}

// listBelow answers the file systems directly below any of the parents, several of
// which are looked at at once.
func (h *Handle) listBelow(ctx context.Context, parents []string) ([]Dataset, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	found := make([][]Dataset, len(parents))
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(listers(), len(parents)) {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(parents) {
					return
				}
				children, err := h.children(ctx, parents[i])
				if err != nil {
					cancel(fail("list", parents[i], err))
					return
				}
				found[i] = children
			}
		})
	}
	wg.Wait()
	var list []Dataset
	for _, children := range found {
		list = append(list, children...)
	}
	return list, context.Cause(ctx)
}

// children answers the file systems directly below parent. A parent that is gone
// has none.
func (h *Handle) children(ctx context.Context, parent string) (list []Dataset, err error) {
	c := newCommand(parent)
	defer c.free()
	c.wantOut = true
	for {
		// The kernel answers a child in place of the parent's name and moves
		// the cookie on; read begins again with what is in params.
		err := h.read(ctx, reqDatasetListNext, c)
		if errors.Is(err, syscall.ESRCH) {
			return list, nil
		}
		if err != nil {
			return list, err
		}
		// $ marks what is the pool's own, % what a receive works on.
		if name := c.text(atName, nameSize); !strings.ContainsAny(name, "$%") && !c.stats().Volume {
			d, err := c.dataset()
			if err != nil {
				return list, err
			}
			list = append(list, d)
		}
		c.cookie = c.get(atCookie)
	}
}
