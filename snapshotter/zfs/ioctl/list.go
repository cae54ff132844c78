package ioctl

import (
	"context"
	"errors"
	"strings"
	"syscall"
)

// ListFilesystems answers root and every file system below it, in no order
// but parents before their children. One that comes, goes or is renamed
// meanwhile may be there or not; the others are there once. Volumes are left
// out, and what a receive has not finished.
//
// It takes two calls for each file system, of which the first, for its
// properties, costs nearly all.
func (h *Handle) ListFilesystems(ctx context.Context, root string) ([]Dataset, error) {
	first, err := h.Stat(ctx, root)
	if err != nil {
		return nil, err
	}
	list := []Dataset{first}
	c := newCommand("")
	defer c.free()
	// The list is the queue: what is found is looked below in its turn.
	for i := 0; i < len(list); i++ {
		if list, err = h.appendChildren(ctx, c, list, list[i].Name); err != nil {
			return nil, fail("list", list[i].Name, err)
		}
	}
	return list, nil
}

// appendChildren appends the file systems directly below parent to list. A
// parent that is gone has none.
func (h *Handle) appendChildren(ctx context.Context, c *command, list []Dataset, parent string) ([]Dataset, error) {
	c.params = params{name: parent, wantOut: true}
	for {
		// The kernel answers a child in place of the parent's name and
		// moves the cookie on, even when the child's list does not fit;
		// read begins again with what is in params.
		err := h.read(ctx, reqDatasetListNext, c)
		if errors.Is(err, syscall.ESRCH) {
			return list, nil
		}
		if err != nil {
			return list, err
		}
		child, ok, err := c.child()
		if err != nil {
			return list, err
		}
		if ok {
			list = append(list, child)
		}
		c.cookie = c.get(atCookie)
	}
}

// child answers the state of the dataset that a call found, or false where a
// listing leaves it out.
func (c *command) child() (Dataset, bool, error) {
	name := c.text(atName, nameSize)
	// $ marks what is the pool's own, % what a receive works on.
	if strings.ContainsAny(name, "$%") {
		return Dataset{}, false, nil
	}
	d, err := c.dataset()
	return d, err == nil && !d.Volume, err
}
