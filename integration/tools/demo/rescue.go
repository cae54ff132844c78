//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// rescue ends whatever the tour has started, by parentage, and removes whatever
// it has made, by its name and place. It runs after a failure or Ctrl-C.
func (t *tour) rescue() error {
	t.line("\n==> The tour ends early: taking everything down")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	// One that has ended in between is what we want; any other is still there in
	// the next round, and named in the end.
	kill := func(p process) { _ = unix.Kill(p.pid, unix.SIGKILL) }
	err := waitAlone(30*time.Second, kill)
	left, listErr := mounts(t.tmp, t.name)
	err = errors.Join(err, listErr)
	for i := len(left) - 1; i >= 0; i-- {
		if unmountErr := unix.Unmount(left[i].point, unix.MNT_DETACH); unmountErr != nil {
			err = errors.Join(err, &fs.PathError{Op: "unmount", Path: left[i].point, Err: unmountErr})
		}
	}
	err = errors.Join(err, t.destroyPoolPatiently(ctx), t.removeOutside(), os.RemoveAll(t.tmp))
	if err != nil {
		return fmt.Errorf("taking everything down: %w", err)
	}
	t.say("nothing is left")
	return nil
}

// destroyPoolPatiently waits for the kernel to let go of what was just killed.
func (t *tour) destroyPoolPatiently(ctx context.Context) error {
	for t.pooled {
		there, err := t.poolExists(ctx)
		if err != nil || !there {
			return err // never made
		}
		if err = t.destroyPool(ctx); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(time.Second):
		}
	}
	return nil
}
