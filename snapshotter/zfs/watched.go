package zfs

import "context"

// watched is a driver that reports every call, before and after it.
type watched struct {
	driver
	at func(point string)
}

// unwatched returns the driver inside of watched, or the driver itself.
func (c *Client) unwatched() driver {
	if w, ok := c.driver.(watched); ok {
		return w.driver
	}
	return c.driver
}

func (w watched) around(call string) (after func()) {
	w.at("before " + call)
	return func() { w.at("after " + call) }
}

func (w watched) program(ctx context.Context, op, dataset, script string, m mode, argv []string) (table, error) {
	defer w.around("program " + op)()
	return w.driver.program(ctx, op, dataset, script, m, argv)
}

func (w watched) clone(ctx context.Context, snapshot, name string, props map[string]string) error {
	defer w.around("clone")()
	return w.driver.clone(ctx, snapshot, name, props)
}

func (w watched) list(ctx context.Context, root, prefix string) ([]Dataset, error) {
	defer w.around("list")()
	return w.driver.list(ctx, root, prefix)
}

func (w watched) written(ctx context.Context, filesystem, snapshot string) (uint64, error) {
	defer w.around("written")()
	return w.driver.written(ctx, filesystem, snapshot)
}

func (w watched) space(ctx context.Context, filesystem string) (Space, error) {
	defer w.around("space")()
	return w.driver.space(ctx, filesystem)
}

func (w watched) waitFreed(ctx context.Context) error {
	defer w.around("wait")()
	return w.driver.waitFreed(ctx)
}

func (w watched) mount(ctx context.Context, filesystem string) error {
	defer w.around("mount")()
	return w.driver.mount(ctx, filesystem)
}

// around reports calls that are not a driver's, such as mounts.
func (c *Client) around(call string) (after func()) {
	if c.watch == nil {
		return func() {}
	}
	c.watch("before " + call)
	return func() { c.watch("after " + call) }
}
