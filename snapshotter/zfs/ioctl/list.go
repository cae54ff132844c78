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

// listers bounds how many calls a listing makes at once. The kernel only reads
// for them, and does not make one wait for another.
func listers() int { return min(2*runtime.GOMAXPROCS(0), 16) }

// ListFilesystems answers root and every file system below it, in no order
// but parents before their children. One that comes, goes or is renamed
// meanwhile may be there or not; the others are there once. Volumes are left
// out, and what a receive has not finished.
//
// It takes three calls for each file system, of which the one for its properties
// costs nearly all; those are made several at once.
func (h *Handle) ListFilesystems(ctx context.Context, root string) ([]Dataset, error) {
	first, err := h.Stat(ctx, root)
	if err != nil {
		return nil, err
	}
	names := []string{root}
	c := newCommand("")
	defer c.free()
	// The list is the queue: what is found is looked below in its turn.
	for i := 0; i < len(names); i++ {
		if names, err = h.appendChildren(ctx, c, names, names[i]); err != nil {
			return nil, fail("list", names[i], err)
		}
	}
	list := make([]Dataset, len(names))
	list[0] = first
	if err := h.statEach(ctx, names[1:], list[1:]); err != nil {
		return nil, err
	}
	// What is gone has no GUID.
	return slices.DeleteFunc(list, func(d Dataset) bool { return d.GUID == 0 }), nil
}

// statEach fills list with the states of datasets, and with nothing for those
// that are not there.
func (h *Handle) statEach(ctx context.Context, names []string, list []Dataset) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(listers(), len(names)) {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(names) {
					return
				}
				d, err := h.Stat(ctx, names[i])
				if errors.Is(err, syscall.ENOENT) {
					continue
				}
				if err != nil {
					cancel(err)
					return
				}
				list[i] = d
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// appendChildren appends the names of the file systems directly below parent.
// A parent that is gone has none.
func (h *Handle) appendChildren(ctx context.Context, c *command, names []string, parent string) ([]string, error) {
	c.params = params{name: parent, simple: true}
	for {
		// The kernel answers a child in place of the parent's name and moves
		// the cookie on; read begins again with what is in params.
		err := h.read(ctx, reqDatasetListNext, c)
		if errors.Is(err, syscall.ESRCH) {
			return names, nil
		}
		if err != nil {
			return names, err
		}
		// $ marks what is the pool's own, % what a receive works on.
		if name := c.text(atName, nameSize); !strings.ContainsAny(name, "$%") && !c.stats().Volume {
			names = append(names, name)
		}
		c.cookie = c.get(atCookie)
	}
}
