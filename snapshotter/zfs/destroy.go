package zfs

import (
	"context"
	_ "embed"
	"fmt"
	"syscall"
)

//go:embed lua/destroy.lua
var destroyScript string

// destroyBatch bounds a channel program: the pool's configuration lock is held
// while it runs.
const destroyBatch = 50

// What destroy.lua answers beside errnos.
const (
	codeHasClones = 1001
	codeForeign   = 1002
)

// Destroy destroys file systems in the given order, each together with its
// snapshot of the short name own and independently of the others. It never
// destroys a clone's origin, a mounted file system, or one that has a snapshot
// of any other name. What is not there counts as destroyed.
//
// It answers, for each file system that is still there, why: an *Error that
// wraps ErrBusy, ErrHasClones, ErrForeign or another kind. The second result
// is not nil when the work could not be done at all; the first then holds what
// is known so far.
func (c *Client) Destroy(ctx context.Context, own string, filesystems []string) (map[string]error, error) {
	left := make(map[string]error)
	for _, name := range filesystems {
		if err := checkSnapshot("destroy", name+"@"+own); err != nil {
			return left, err
		}
		if err := c.inPool("destroy", name); err != nil {
			return left, err
		}
	}
	for len(filesystems) > 0 {
		if err := ctx.Err(); err != nil {
			return left, err
		}
		n := min(destroyBatch, len(filesystems))
		if err := c.destroyProgram(context.WithoutCancel(ctx), own, filesystems[:n], left); err != nil {
			return left, err
		}
		filesystems = filesystems[n:]
	}
	return left, nil
}

func (c *Client) destroyProgram(ctx context.Context, own string, batch []string, left map[string]error) error {
	codes := make(map[string]int)
	argv := append([]string{own}, batch...)
	if err := c.program(ctx, "destroy", batch[0], destroyScript, readWrite, argv, &codes); err != nil {
		return err
	}
	for name, code := range codes {
		left[name] = destroyError(name, code)
	}
	return nil
}

func destroyError(name string, code int) error {
	switch code {
	case codeHasClones:
		return &Error{Op: "destroy", Dataset: name, Kind: ErrHasClones}
	case codeForeign:
		return &Error{Op: "destroy", Dataset: name, Kind: ErrForeign,
			Detail: fmt.Sprintf("destroy them (zfs list -t snapshot %s) or exclude the dataset from whatever takes them", name)}
	default:
		return errnoError("destroy", name, syscall.Errno(code))
	}
}

// DestroySnapshot destroys one snapshot that has no clones. One that is not
// there counts as destroyed.
func (c *Client) DestroySnapshot(ctx context.Context, snapshot string) error {
	if err := checkSnapshot("destroy", snapshot); err != nil {
		return err
	}
	if err := c.inPool("destroy", snapshot); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	var answer struct{ Errno syscall.Errno }
	const script = `
args = ...
local name = args["argv"][1]
if not zfs.exists(name) then return { errno = 0 } end
local err = zfs.check.destroy(name)
if err == 0 then err = zfs.sync.destroy(name) end
return { errno = err }`
	err := c.program(context.WithoutCancel(ctx), "destroy", snapshot, script, readWrite, []string{snapshot}, &answer)
	if err != nil {
		return err
	}
	if answer.Errno != 0 {
		return errnoError("destroy", snapshot, answer.Errno)
	}
	return nil
}
