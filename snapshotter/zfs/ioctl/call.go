package ioctl

import (
	"context"
	"syscall"
)

// read makes a call that changes nothing. It repeats the call after a signal, and with
// a larger buffer if the kernel's list does not fit.
func (h *Handle) read(ctx context.Context, r request, c *command) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := c.fill(); err != nil {
			return err
		}
		switch errno := h.ioctl(r, c); {
		case errno == 0:
			return nil
		case errno == syscall.EINTR:
		case errno == syscall.ENOMEM && c.tooSmall():
		default:
			return errno
		}
	}
}

// change makes a call that changes the pool: once, to its end, with signals blocked.
// The kernel truncates the lists of such calls to the buffer, so there is no reason to
// repeat one. EINTR is an error like any other: it does not mean that the call had no
// effect.
func (h *Handle) change(ctx context.Context, r request, c *command) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := c.fill(); err != nil {
		return err
	}
	defer blockSignals(false)()
	if errno := h.ioctl(r, c); errno != 0 {
		return errno
	}
	return nil
}

// wait makes a call that the end of ctx interrupts. If again is not nil, it undoes the
// effect of an interrupted call before the call is repeated.
func (h *Handle) wait(ctx context.Context, r request, c *command, again func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	defer blockSignals(true)()
	defer interruptWhenDone(ctx)()
	for {
		if err := c.fill(); err != nil {
			return err
		}
		errno := h.ioctl(r, c)
		if errno == 0 {
			return nil
		}
		if errno != syscall.EINTR {
			return errno
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if again == nil {
			continue
		}
		if err := again(); err != nil {
			return err
		}
	}
}
