package ioctl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/zfstpl/zfstpl/snapshotter/zfs/nvlist"
)

// The largest limits of a channel program that the kernel allows.
const (
	MaxInstructions = 100_000_000
	MaxMemory       = 100 << 20 // bytes
)

// Program is a channel program: a Lua script that the kernel runs within one
// transaction group.
type Program struct {
	Source string
	// Args are the arguments: the field argv of the script's first argument,
	// counted from 1, as the zfs command passes them.
	Args []string
	// ReadOnly runs the script outside of any transaction: zfs.sync fails, and
	// nothing waits for the disk.
	ReadOnly bool
	// Instructions and Memory bound the script; 0 means the largest limit. They
	// reserve nothing.
	Instructions uint64
	Memory       uint64 // bytes
}

// Run runs a program in a pool and returns its result: an nvlist.List for a table
// (numbers as names in decimal, in no order), an int64, a string, a bool, nvlist.Flag
// for nil, and nil if it returned nothing.
//
// Run of a program that changes the pool returns when its transaction group is on
// disk. The steps before an error are not undone. The error's Message is that of the
// script or of the kernel; its errno:
//
//	EINVAL   the script does not compile, or a limit is out of range
//	ErrnoProgram   the script failed, or returned more than one value
//	ETIME    it used up its instructions
//	ENOSPC   it used up its memory, or the pool has no space at all
//	ENOMEM   it ran, but its result exceeds its memory limit and is lost
//	EINTR    it was interrupted; see below
//
// A crash of the machine leaves all of a program or nothing. The end of the process
// does not: if SIGKILL, or any signal that ends the process, arrives while the program
// waits for its transaction group, the kernel still runs the program and stops it
// after 100 Lua instructions; their effect remains. A shorter program is not stopped:
// about fifteen calls of zfs.sync in a straight line fit. SIGTERM does not end a
// process that handles it.
func (h *Handle) Run(ctx context.Context, pool string, p Program) (any, error) {
	op := "program"
	c := newCommand(pool)
	defer c.free()
	if err := c.setIn(p.list()); err != nil {
		return nil, fail(op, pool, err)
	}
	// The result must fit the first time: the program cannot be run again.
	buffer, release, err := bigBuffer(int(min(p.memory(), MaxMemory)) + outSize)
	if err != nil {
		return nil, fail(op, pool, fmt.Errorf("buffer for the result: %w", err))
	}
	pooled := c.out
	defer func() {
		c.out = pooled
		release()
	}()
	c.out, c.wantOut = buffer, true
	if p.ReadOnly {
		err = h.wait(ctx, reqChannelProgram, c, nil) // unlike read: ENOMEM is the program's result
	} else {
		err = h.change(ctx, reqChannelProgram, c)
	}
	return c.result(err)
}

func (p Program) memory() uint64 { return cmp.Or(p.Memory, MaxMemory) }

func (p Program) list() nvlist.List {
	return nvlist.List{
		{Name: "program", Value: p.Source},
		{Name: "arg", Value: nvlist.List{{Name: "argv", Value: p.Args}}},
		{Name: "sync", Value: !p.ReadOnly},
		{Name: "instrlimit", Value: cmp.Or(p.Instructions, MaxInstructions)},
		{Name: "memlimit", Value: p.memory()},
	}
}

// result decodes the result of a program from the kernel's list and the call's error.
func (c *command) result(err error) (any, error) {
	const op = "program"
	var list nvlist.List
	if reply, ok := c.reply(); ok {
		var bad error
		if list, bad = nvlist.Decode(reply); bad != nil && err == nil {
			return nil, fail(op, c.name, bad)
		}
	}
	e := &Error{Op: op, Dataset: c.name, Err: err}
	// The kernel omits what does not fit, which is all of a program's result, and
	// returns how much it omitted.
	if _, truncated := list.Lookup(moreErrors); truncated {
		if err == nil {
			e.Err = syscall.ENOMEM
		}
		e.Message = "the program ran, but its result did not fit"
		return nil, e
	}
	if err == nil {
		value, _ := list.Lookup("return")
		return value, nil
	}
	if message, ok := list.Lookup("error"); ok {
		e.Message = fmt.Sprint(message)
	}
	if errno, ok := poolErrno(e.Message); ok && errors.Is(err, ErrnoProgram) {
		e.Err = errno
	}
	return nil, e
}

// poolErrno parses the errno in the kernel's message for a program that did not begin:
// "Could not open pool: <name> errno: <number>". The call itself then returns ECHRNG,
// as if the script had failed.
func poolErrno(message string) (errno syscall.Errno, ok bool) {
	var name string
	_, err := fmt.Sscanf(message, "Could not open pool: %s errno: %d", &name, &errno)
	return errno, err == nil
}
