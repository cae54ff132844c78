package zfs

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"syscall"
)

//go:embed lua/destroy.lua
var destroyScript string

// destroyBatch bounds the datasets of a channel program: the kernel holds the pool's
// configuration lock while it runs.
const destroyBatch = 50

// What destroy.lua returns in addition to errnos.
const (
	codeHasClones    = 1001
	codeForeign      = 1002
	codeSnapshotLost = 2000 // added to an errno
)

// Destroy destroys file systems in the given order and independently of each other,
// each with its snapshot of the short name own and its temporary snapshots that are
// not in use. It never destroys the origin of a clone, a mounted file system, or one
// with any other snapshot. A file system that does not exist counts as destroyed.
//
// The first result has an *Error for each file system that still exists, with ErrBusy,
// ErrHasClones, ErrForeign or another kind. A busy file system keeps its snapshot,
// unless it was written to or there was no space to take the snapshot again; then
// SnapshotLost is set. The second result is an error of the operation as a whole; the
// first then has what is known so far.
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
	for batch := range slices.Chunk(filesystems, destroyBatch) {
		if err := ctx.Err(); err != nil {
			return left, err
		}
		argv := append([]string{own, TemporaryPrefix}, batch...)
		codes, err := c.program(context.WithoutCancel(ctx), "destroy", batch[0], destroyScript, readWrite, argv)
		if err != nil {
			return left, err
		}
		for name := range codes {
			code, _ := codes.number(name)
			left[name] = destroyError(name, int(code))
		}
	}
	return left, nil
}

func destroyError(name string, code int) error {
	if code > codeSnapshotLost {
		err := errnoError("destroy", name, syscall.Errno(code-codeSnapshotLost))
		err.SnapshotLost = true
		return err
	}
	switch code {
	case codeHasClones:
		return &Error{Op: "destroy", Dataset: name, Kind: ErrHasClones}
	case codeForeign:
		return &Error{Op: "destroy", Dataset: name, Kind: ErrForeign,
			Detail: fmt.Sprintf("'zfs list -t snapshot %s' lists them: destroy them, and exclude the dataset from the program that takes them", name)}
	default:
		return errnoError("destroy", name, syscall.Errno(code))
	}
}

// DestroySnapshot destroys one snapshot that has no clones. A snapshot that does not
// exist counts as destroyed.
func (c *Client) DestroySnapshot(ctx context.Context, snapshot string) error {
	err := c.destroySnapshot(ctx, snapshot)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// destroySnapshot is DestroySnapshot, but fails with ErrNotFound if the snapshot does
// not exist.
func (c *Client) destroySnapshot(ctx context.Context, snapshot string) error {
	if err := checkSnapshot("destroy", snapshot); err != nil {
		return err
	}
	if err := c.inPool("destroy", snapshot); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	const script = `
args = ...
local name = args["argv"][1]
if not zfs.exists(name) then return { errno = 2 } end
local err = zfs.check.destroy(name)
if err == 0 then err = zfs.sync.destroy(name) end
return { errno = err }`
	result, err := c.program(context.WithoutCancel(ctx), "destroy snapshot", snapshot, script, readWrite, []string{snapshot})
	if err != nil {
		return err
	}
	return result.err("destroy", snapshot)
}

//go:embed lua/foreign.lua
var foreignScript string

// DestroyForeign destroys all snapshots of a file system except the one with the short
// name own. Snapshots that have clones, are mounted or held stay; the error is that of
// the first of them.
func (c *Client) DestroyForeign(ctx context.Context, own, filesystem string) error {
	if err := checkSnapshot("destroy", filesystem+"@"+own); err != nil {
		return err
	}
	if err := c.inPool("destroy", filesystem); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	result, err := c.program(context.WithoutCancel(ctx), "destroy foreign", filesystem, foreignScript, readWrite, []string{own, filesystem})
	if err != nil {
		return err
	}
	return result.err("destroy", filesystem)
}
