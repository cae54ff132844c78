package ioctl

import (
	"context"
	"os"
	"syscall"
)

// TemporarySnapshot is a snapshot that goes when it is closed, or this process
// ends however it ends.
type TemporarySnapshot struct {
	Name   string // with its file system
	device *os.File
}

// Close destroys the snapshot, as soon as it is no longer mounted.
func (t *TemporarySnapshot) Close() error { return t.device.Close() }

// TemporarySnapshot takes a snapshot whose short name is prefix, a hyphen and
// a number. It waits for a txg, which the end of ctx does not cut short.
//
//	ENOENT  no such file system
//	EEXIST  another one was taken within the kernel's tick
func (h *Handle) TemporarySnapshot(ctx context.Context, filesystem, prefix string) (*TemporarySnapshot, error) {
	const op = "temporary snapshot"
	// The kernel ties the snapshot to an opening of the device. This one is
	// the snapshot's own.
	device, err := os.OpenFile(h.file.Name(), os.O_RDWR, 0)
	if err != nil {
		return nil, fail(op, filesystem, err)
	}
	c := newCommand(filesystem)
	defer c.free()
	c.value, c.cleanup = prefix, uint32(device.Fd())
	if err := h.change(ctx, reqTmpSnapshot, c); err != nil {
		device.Close()
		return nil, fail(op, filesystem, err)
	}
	short := c.text(atValue, valueSize)
	if short == "" || short == prefix {
		device.Close()
		return nil, fail(op, filesystem, syscall.EIO)
	}
	return &TemporarySnapshot{Name: filesystem + "@" + short, device: device}, nil
}
