package zfs

import (
	"context"
	_ "embed"
	"errors"
	"slices"
	"syscall"
)

//go:embed lua/apply.lua
var applyScript string

// Apply carries out ops in order. When it answers an error of a kind, nothing
// of them is left; when the machine dies, the pool holds all of them or none.
//
// Two things can leave a first part of the list. Where channel programs cannot
// clone (below 2.4) a list with a clone takes several transactions, and a crash
// may come before a clone, after it, or before the properties behind it. And
// on every release a command that is killed while it waits for its txg is
// stopped by the kernel between any two ops; the error then has no kind.
// Callers order their lists so that each first part can be told from the whole.
func (c *Client) Apply(ctx context.Context, ops ...Op) error {
	if len(ops) == 0 {
		return nil
	}
	if err := checkOps(ops); err != nil {
		return err
	}
	for _, op := range ops {
		if err := c.inPool(string(op.verb), op.name); err != nil {
			return err
		}
	}
	// From here on the outcome is wanted even if the caller no longer is.
	ctx = context.WithoutCancel(ctx)
	if c.clones {
		return c.applyProgram(ctx, ops)
	}
	return c.applySteps(ctx, ops)
}

func (c *Client) applyProgram(ctx context.Context, ops []Op) error {
	var argv []string
	for _, op := range ops {
		argv = append(argv, op.words()...)
	}
	var answer struct {
		Errno    syscall.Errno
		Op, Name string
	}
	first := ops[0]
	if err := c.program(ctx, string(first.verb), first.name, applyScript, readWrite, argv, &answer); err != nil {
		return err
	}
	if answer.Errno != 0 {
		return errnoError(answer.Op, answer.Name, answer.Errno)
	}
	return nil
}

// applySteps cuts ops at each clone: what lies between clones is a program, a
// clone is a command that takes the properties directly behind it along. When
// a step fails, what earlier steps made is destroyed, last first.
func (c *Client) applySteps(ctx context.Context, ops []Op) error {
	var made []string
	for len(ops) > 0 {
		n, err := c.applyStep(ctx, ops)
		if err != nil {
			return errors.Join(err, c.takeBack(ctx, made))
		}
		for _, op := range ops[:n] {
			if op.verb == verbClone || op.verb == verbSnapshot {
				made = append(made, op.name)
			}
		}
		ops = ops[n:]
	}
	return nil
}

// applyStep does the first step of ops and answers how many of them it was.
func (c *Client) applyStep(ctx context.Context, ops []Op) (int, error) {
	if ops[0].verb == verbClone {
		n := 1
		for n < len(ops) && ops[n].verb == verbSet && ops[n].name == ops[0].name {
			n++
		}
		return n, c.cloneCommand(ctx, ops[0], ops[1:n])
	}
	n := slices.IndexFunc(ops, func(op Op) bool { return op.verb == verbClone })
	if n < 0 {
		n = len(ops)
	}
	return n, c.applyProgram(ctx, ops[:n])
}

func (c *Client) cloneCommand(ctx context.Context, clone Op, props []Op) error {
	args := []string{"clone"}
	for _, p := range props {
		args = append(args, "-o", p.prop+"="+p.value)
	}
	args = append(args, clone.origin, clone.name)
	_, err := c.run(ctx, "clone", clone.name, nil, args...)
	return err
}

// takeBack destroys what was made. It runs only inside the call that made it,
// so nothing else can have come to depend on it.
func (c *Client) takeBack(ctx context.Context, made []string) error {
	var errs []error
	for _, name := range slices.Backward(made) {
		if _, err := c.run(ctx, "take back", name, nil, "destroy", name); err != nil && !errors.Is(err, ErrNotFound) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
