package ioctl

import (
	"context"
	"syscall"
)

// read makes a call that changes nothing: it is made again after a signal, and
// with more room when the kernel's list does not fit.
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

// change makes a call that changes the pool: once, to its end, with signals
// blocked. The kernel cuts the lists that such calls answer to the room there
// is, so there is no reason to make one again. EINTR is an answer like others:
// no caller may take it for a call that was not made.
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

// wait makes a call that the end of ctx interrupts. again, where not nil, puts
// right what an interrupted call left before it is made again.
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
