package ioctl

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
)

// listers bounds the concurrent calls of a listing. The kernel only reads for them,
// and they do not wait for each other.
func listers() int { return min(2*runtime.GOMAXPROCS(0), 16) }

// ListFilesystems returns root and the file systems below it, parents before their
// children and otherwise in no order. A file system that is created, destroyed or
// renamed meanwhile may be missing; every other one is listed once. Volumes and
// incomplete receives are omitted.
//
// A listing takes one call for each file system, in which the kernel opens it, and one
// more for each file system whose children are listed: root, the children of root, and
// of all others those with bytes below them. A clone that was never written to is
// therefore not found three or more levels down.
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

// listBelow returns the children of the parents. It lists several parents
// concurrently.
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
	return slices.Concat(found...), context.Cause(ctx)
}

// children returns the file systems directly below parent. A parent that does not
// exist has none.
func (h *Handle) children(ctx context.Context, parent string) (list []Dataset, err error) {
	c := newCommand(parent)
	defer c.free()
	c.wantOut = true
	for {
		// The kernel writes the child over the parent's name and advances the
		// cookie; read fills the structure from params again.
		err := h.read(ctx, reqDatasetListNext, c)
		if errors.Is(err, syscall.ESRCH) {
			return list, nil
		}
		if err != nil {
			return list, err
		}
		// $ marks internal datasets, % those of a receive in progress.
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

// ListSnapshots returns the short names of a file system's snapshots, in no order. The
// kernel opens no snapshot for it, so a snapshot with thousands of clones costs no more
// than others. A snapshot that is created or destroyed meanwhile may be missing.
func (h *Handle) ListSnapshots(ctx context.Context, filesystem string) (names []string, err error) {
	const op = "list snapshots"
	c := newCommand(filesystem)
	defer c.free()
	c.simple = true
	for {
		err := h.read(ctx, reqSnapshotListNext, c)
		if errors.Is(err, syscall.ESRCH) {
			break
		}
		if err != nil {
			return nil, fail(op, filesystem, err)
		}
		_, short, _ := strings.Cut(c.text(atName, nameSize), "@")
		names = append(names, short)
		c.cookie = c.get(atCookie)
	}
	// A file system that does not exist looks like one without snapshots.
	if len(names) == 0 {
		if _, err := h.FastStat(ctx, filesystem); err != nil {
			return nil, fail(op, filesystem, errors.Unwrap(err))
		}
	}
	return names, nil
}
