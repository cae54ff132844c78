package zfs

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"syscall"
)

//go:embed lua/apply.lua
var applyScript string

// Apply carries out ops in order. When it answers an error of a kind, nothing
// of them is left; when the machine dies, the pool holds all of them or none.
//
// Two things can leave a first part of the list. A list with a clone takes
// several transactions where channel programs cannot clone (below 2.4), and
// everywhere when it has a Quota; a crash may come before a clone, after it, or
// before the properties behind it. And on every release a program whose process
// is killed while it waits for its txg is stopped by the kernel between any two
// ops; an error then has no kind. Callers order their lists so that each first
// part can be told from the whole.
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
	if c.clones && !slices.ContainsFunc(ops, Op.native) {
		return c.applyProgram(ctx, ops)
	}
	return c.applySteps(ctx, ops)
}

// sameTxg is how often a list is tried whose snapshot another one of the same
// file system, taken by whoever, shares a txg with: ZFS refuses the second.
const sameTxgAttempts = 3

func (c *Client) applyProgram(ctx context.Context, ops []Op) (err error) {
	for range sameTxgAttempts {
		if err = c.applyOnce(ctx, ops); !errors.Is(err, errSameTxg) {
			break
		}
	}
	return err
}

var errSameTxg = fmt.Errorf("%w: another snapshot of it was taken in the same moment", ErrBusy)

func (c *Client) applyOnce(ctx context.Context, ops []Op) error {
	return c.runOps(ctx, string(ops[0].verb), ops)
}

// Mark sets a user property of a file system, or takes it away where value is
// empty: what Apply does with a Set or an Inherit, under a name of its own.
func (c *Client) Mark(ctx context.Context, filesystem, prop, value string) error {
	op := Set(filesystem, prop, value)
	if value == "" {
		op = Inherit(filesystem, prop)
	}
	if err := op.check(); err != nil {
		return err
	}
	if err := c.inPool("mark", filesystem); err != nil {
		return err
	}
	return c.runOps(context.WithoutCancel(ctx), "mark", []Op{op})
}

// runOps carries ops out in one channel program.
func (c *Client) runOps(ctx context.Context, op string, ops []Op) error {
	var argv []string
	for _, op := range ops {
		argv = append(argv, op.words()...)
	}
	name := ops[0].name
	result, err := c.driver.program(ctx, op, name, applyScript, readWrite, argv)
	if err != nil {
		return err
	}
	errno, err := result.errno(op, name)
	if err == nil && errno != 0 {
		err = opError(verb(result.text("op")), result.text("name"), errno)
	}
	return err
}

func opError(v verb, name string, errno syscall.Errno) error {
	if v == verbSnapshot && errno == syscall.EAGAIN {
		return &Error{Op: string(v), Dataset: name, Kind: errSameTxg}
	}
	return errnoError(string(v), name, errno)
}

// applySteps cuts ops at each clone: what lies between clones is a program, a
// clone takes the properties directly behind it along. When a step fails, what
// earlier steps made is destroyed, last first.
func (c *Client) applySteps(ctx context.Context, ops []Op) error {
	var made []string
	for len(ops) > 0 {
		n, err := c.applyStep(ctx, ops)
		if err != nil {
			return errors.Join(err, c.rollback(ctx, made))
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
	if clone := ops[0]; clone.verb == verbClone {
		props := make(map[string]string)
		n := 1
		for ; n < len(ops) && ops[n].name == clone.name && ops[n].sets(); n++ {
			props[ops[n].prop] = ops[n].value
		}
		return n, c.driver.clone(ctx, clone.origin, clone.name, props)
	}
	n := slices.IndexFunc(ops, func(op Op) bool { return op.verb == verbClone })
	if n < 0 {
		n = len(ops)
	}
	return n, c.applyProgram(ctx, ops[:n])
}

// takeBackScript destroys file systems and snapshots in the given order and
// answers the first failure, together with the name.
const rollbackScript = `
args = ...
local first = { errno = 0, name = "" }
for _, name in ipairs(args["argv"]) do
    if zfs.exists(name) then
        local err = zfs.check.destroy(name)
        if err == 0 then err = zfs.sync.destroy(name) end
        if err ~= 0 and first.errno == 0 then first = { errno = err, name = name } end
    end
end
return first`

// takeBack destroys what was made. It runs only inside the call that made it,
// so nothing else can have come to depend on it.
func (c *Client) rollback(ctx context.Context, made []string) error {
	if len(made) == 0 {
		return nil
	}
	made = slices.Clone(made)
	slices.Reverse(made)
	const op = "roll back"
	result, err := c.driver.program(ctx, op, made[0], rollbackScript, readWrite, made)
	if err != nil {
		return err
	}
	errno, err := result.errno(op, made[0])
	if err == nil && errno != 0 {
		err = errnoError(op, result.text("name"), errno)
	}
	return err
}
