package zfs

import (
	"context"
	"maps"
	"slices"
)

// SetNative sets native properties of a file system. It mounts and unmounts nothing:
// mounts of containers stay, even if the mountpoint changes.
func (c *Client) SetNative(ctx context.Context, filesystem string, props map[string]string) error {
	if err := checkFilesystem("set", filesystem); err != nil {
		return err
	}
	if err := c.inPool("set", filesystem); err != nil {
		return err
	}
	return c.driver.set(context.WithoutCancel(ctx), filesystem, props)
}

func (n *native) set(ctx context.Context, filesystem string, props map[string]string) error {
	return nativeError("set", filesystem, n.zfs.SetProperties(ctx, filesystem, props))
}

// set needs 'zfs set -u', which exists since 2.2.
func (c *commands) set(ctx context.Context, filesystem string, props map[string]string) error {
	args := []string{"set", "-u"}
	for _, name := range slices.Sorted(maps.Keys(props)) {
		args = append(args, name+"="+props[name])
	}
	_, err := c.run(ctx, "set", filesystem, nil, append(args, filesystem)...)
	return err
}
