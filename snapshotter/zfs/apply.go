package zfs

import (
	"context"
	_ "embed"
	"errors"
	"slices"
)

//go:embed lua/apply.lua
var applyScript string

// Apply carries out ops in order. If it returns an error with a kind, none of them is
// left. If the machine crashes, the pool has all of them or none.
//
// Two things can leave a first part of the list. A list with a clone takes several
// transactions if channel programs cannot clone (below 2.4), and on every release if
// it has a Quota: a crash may happen before a clone, after it, or before the
// properties that follow it. And on every release the kernel stops a program whose
// process is killed while it waits for its txg, possibly between any two ops; that
// error has no kind. Callers order their lists so that each first part is
// recognizable.
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
	// From here on the outcome is needed even if the caller no longer waits.
	ctx = context.WithoutCancel(ctx)
	if c.clones && !slices.ContainsFunc(ops, Op.native) {
		return c.applyProgram(ctx, ops)
	}
	return c.applySteps(ctx, ops)
}

// ProgramsClone reports whether Apply executes a list with clones in one transaction.
func (c *Client) ProgramsClone() bool { return c.clones }

// sameTxgAttempts is how often a list is tried if it fails with errSameTxg.
const sameTxgAttempts = 3

func (c *Client) applyProgram(ctx context.Context, ops []Op) (err error) {
	for range sameTxgAttempts {
		if err = c.runOps(ctx, string(principal(ops).verb), ops); !errors.Is(err, errSameTxg) {
			break
		}
	}
	return err
}

// Mark sets a user property of a file system, or removes it if value is empty. It does
// what Apply does with a Set or an Inherit, with an op name of its own.
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

// principal returns the op that names a list: the first one that does not only raise a property.
func principal(ops []Op) Op {
	if i := slices.IndexFunc(ops, func(op Op) bool { return op.verb != verbRaise }); i >= 0 {
		return ops[i]
	}
	return ops[0]
}

// runOps carries out ops in one channel program.
func (c *Client) runOps(ctx context.Context, op string, ops []Op) error {
	var argv []string
	for _, op := range ops {
		argv = append(argv, op.words()...)
	}
	name := principal(ops).name
	result, err := c.program(ctx, op, name, applyScript, readWrite, argv)
	if err != nil {
		return err
	}
	return result.err(op, name)
}

// applySteps splits ops at each clone: the ops between clones are one program, and a
// clone includes the properties that follow it. If a step fails, applySteps destroys
// what the earlier steps created, last first.
func (c *Client) applySteps(ctx context.Context, ops []Op) error {
	var created []string
	for len(ops) > 0 {
		n, err := c.applyStep(ctx, ops)
		if err != nil {
			return errors.Join(err, c.rollback(ctx, created))
		}
		for _, op := range ops[:n] {
			if op.verb == verbClone || op.verb == verbSnapshot {
				created = append(created, op.name)
			}
		}
		ops = ops[n:]
	}
	return nil
}

// applyStep carries out the first step of ops and returns the number of its ops.
func (c *Client) applyStep(ctx context.Context, ops []Op) (int, error) {
	if clone := ops[0]; clone.verb == verbClone {
		n := 1
		for n < len(ops) && ops[n].name == clone.name && ops[n].sets() {
			n++
		}
		defer c.around("clone")()
		return n, c.driver.clone(ctx, clone.origin, clone.name, ops[1:n])
	}
	n := slices.IndexFunc(ops, func(op Op) bool { return op.verb == verbClone })
	if n < 0 {
		n = len(ops)
	}
	return n, c.applyProgram(ctx, ops[:n])
}

// rollbackScript destroys file systems and snapshots in the given order and returns
// the first error with its dataset.
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

// rollback destroys what a call created. It runs only inside that call, so nothing can
// depend on it yet.
func (c *Client) rollback(ctx context.Context, created []string) error {
	if len(created) == 0 {
		return nil
	}
	slices.Reverse(created)
	const op = "roll back"
	result, err := c.program(ctx, op, created[0], rollbackScript, readWrite, created)
	if err != nil {
		return err
	}
	return result.err(op, created[0])
}
