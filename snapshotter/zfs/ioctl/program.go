package ioctl

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/zfstpl/zfstpl/snapshotter/zfs/nvlist"
)

// Limits of a channel program.
const (
	DefaultInstructions = 10_000_000
	MaxInstructions     = 100_000_000
	DefaultMemory       = 10 << 20  // bytes
	MaxMemory           = 100 << 20 // bytes
)

// Program is a channel program: a Lua script that the kernel runs within one
// transaction group.
type Program struct {
	Source string
	// Args are the script's words: its first argument's field argv, counted
	// from 1, as the zfs command passes them.
	Args []string
	// ReadOnly runs the script outside any transaction: zfs.sync fails, and
	// nothing waits for the disk.
	ReadOnly bool
	// Instructions and Memory bound the script: 0 stands for the default.
	// They are bounds, not reservations.
	Instructions uint64
	Memory       uint64 // bytes
}

// Run runs a program in a pool and answers what it returned: an nvlist.List
// for a table (numbers as names in decimal, in no order), an int64, a string, a
// bool, nvlist.Flag for nil, and nil where it returned nothing.
//
// One that changes the pool returns when its transaction group is on disk.
// What a failed program did before it failed stays done. The error's Message
// is what the script or the kernel said; its errno:
//
//	EINVAL   the script does not compile, a limit is out of range
//	ErrnoProgram   the script failed, or returned more than one value
//	ETIME    it used up its instructions
//	ENOSPC   it used up its memory, or the pool has no space even for this
//	ENOMEM   it ran, but its answer is longer than its memory limit: lost
//	EINTR    it was interrupted; see below
//
// A machine that dies leaves all of a program or nothing. A process that dies
// does not: when SIGKILL, or any signal that ends the process, comes while the
// program waits for its transaction group, the kernel runs the program all the
// same and stops it after 100 Lua instructions, with what these did left done.
// Programs shorter than that are not stopped: in straight lines, some fifteen
// calls of zfs.sync fit. A process that handles SIGTERM is not ended by it.
func (h *Handle) Run(ctx context.Context, pool string, p Program) (any, error) {
	op := "program"
	c := newCommand(pool)
	defer c.free()
	if err := c.setIn(p.list()); err != nil {
		return nil, fail(op, pool, err)
	}
	// The answer must fit at first go: there is no second run.
	buffer, release, err := bigBuffer(int(min(p.memory(), MaxMemory)) + outSize)
	if err != nil {
		return nil, fail(op, pool, fmt.Errorf("no room for the answer: %w", err))
	}
	pooled := c.out
	defer func() {
		c.out = pooled
		release()
	}()
	c.out, c.wantOut = buffer, true
	if p.ReadOnly {
		err = h.query(ctx, reqChannelProgram, c)
	} else {
		err = h.change(ctx, reqChannelProgram, c)
	}
	return c.result(err)
}

// query makes a call that changes nothing and whose errors, ENOMEM too, are
// its answer.
func (h *Handle) query(ctx context.Context, r request, c *command) error {
	return h.wait(ctx, r, c, nil)
}

func (p Program) memory() uint64 {
	if p.Memory == 0 {
		return DefaultMemory
	}
	return p.Memory
}

func (p Program) list() nvlist.List {
	instructions := p.Instructions
	if instructions == 0 {
		instructions = DefaultInstructions
	}
	args := p.Args
	if args == nil {
		args = []string{}
	}
	return nvlist.List{
		{Name: "program", Value: p.Source},
		{Name: "arg", Value: nvlist.List{{Name: "argv", Value: args}}},
		{Name: "sync", Value: !p.ReadOnly},
		{Name: "instrlimit", Value: instructions},
		{Name: "memlimit", Value: p.memory()},
	}
}

// result decodes what a program answered, together with the call's error.
func (c *command) result(err error) (any, error) {
	const op = "program"
	var list nvlist.List
	if answer, ok := c.answer(); ok {
		var bad error
		if list, bad = nvlist.Decode(answer); bad != nil && err == nil {
			return nil, fail(op, c.name, bad)
		}
	}
	e := &Error{Op: op, Dataset: c.name, Err: err}
	// The kernel makes an answer fit by leaving out what does not, all of it
	// here, and says how much that was.
	if _, cut := list.Lookup(moreErrors); cut {
		if err == nil {
			e.Err = syscall.ENOMEM
		}
		e.Message = "the program ran, but its answer did not fit"
		return nil, e
	}
	if err == nil {
		value, _ := list.Lookup("return")
		return value, nil
	}
	switch said, _ := list.Lookup("error"); said := said.(type) {
	case nil:
	case string:
		e.Message = said
	default:
		e.Message = fmt.Sprint(said)
	}
	if errno, ok := poolErrno(e.Message); ok && errors.Is(err, ErrnoProgram) {
		e.Err = errno
	}
	return nil, e
}

// poolErrno finds the errno in what the kernel says when a program did not
// begin: "Could not open pool: <name> errno: <number>". The call itself then
// answers ECHRNG, as if the script had failed.
func poolErrno(message string) (syscall.Errno, bool) {
	rest, ok := strings.CutPrefix(message, "Could not open pool: ")
	if !ok {
		return 0, false
	}
	var name string
	var errno syscall.Errno
	if n, err := fmt.Sscanf(rest, "%s errno: %d", &name, &errno); err != nil || n != 2 {
		return 0, false
	}
	return errno, true
}
