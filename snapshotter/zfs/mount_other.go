//go:build !linux

package zfs

import (
	"context"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Flush writes all file systems to the pools, because this system has no call for one
// file system. It is compiled, but not tested.
func (c *Client) Flush(ctx context.Context, _ string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return unix.Sync()
}

// CreateIntentLog does nothing on this system.
func (c *Client) CreateIntentLog(ctx context.Context, _ string) error { return ctx.Err() }

// Attach does nothing on this system.
func (c *Client) Attach(context.Context, string) (io.Closer, error) {
	return io.NopCloser(nil), nil
}

// Objects returns 0 on this system.
func (c *Client) Objects(context.Context, string) (uint64, error) { return 0, nil }

// AttachRoot is not available on this system.
func (c *Client) AttachRoot(_ context.Context, snapshot string) (*os.File, error) {
	return nil, &Error{Op: "mount", Dataset: snapshot, Kind: ErrUnavailable}
}

// AttachWritable is not available on this system.
func (c *Client) AttachWritable(_ context.Context, filesystem string) (*os.File, error) {
	return nil, &Error{Op: "mount", Dataset: filesystem, Kind: ErrUnavailable}
}

// Device is not available on this system.
func (c *Client) Device(_ context.Context, filesystem string) (uint64, error) {
	return 0, &Error{Op: "mount", Dataset: filesystem, Kind: ErrUnavailable}
}

// MountAt is not available on this system.
func (c *Client) MountAt(_ context.Context, filesystem, _ string) error {
	return &Error{Op: "mount", Dataset: filesystem, Kind: ErrUnavailable}
}
