package zfs

import (
	"cmp"
	"context"
	"fmt"
	"syscall"
)

// A driver is a way to call ZFS. There are two: native calls into the kernel module,
// and the zfs command. The client has checked all names and properties before, and a
// driver's errors are *Error.
type driver interface {
	// program runs a channel program in the client's pool and returns its result.
	// dataset is for the error.
	program(ctx context.Context, op, dataset, script string, m mode, argv []string) (table, error)

	// clone creates a clone with the native and user properties of sets. It takes several
	// transactions, the user properties last and in the order of sets. If one fails, the
	// clone is destroyed again.
	clone(ctx context.Context, snapshot, name string, sets []Op) error

	// list returns root and every file system below it, with the user properties that
	// are set there and whose names begin with prefix.
	list(ctx context.Context, root, prefix string) ([]Dataset, error)

	written(ctx context.Context, filesystem, snapshot string) (uint64, error)
	space(ctx context.Context, filesystem string) (Space, error)
	syncDisabled(ctx context.Context, filesystem string) (bool, error)
	poolState(ctx context.Context) (PoolState, error)
	waitFreed(ctx context.Context) error

	// set sets native properties. It mounts and unmounts nothing.
	set(ctx context.Context, filesystem string, props map[string]string) error

	close() error
}

// mode is whether a channel program may change the pool. A read-only program waits for
// no txg.
type mode bool

const (
	readOnly  mode = false
	readWrite mode = true
)

// table is a Lua table that a channel program returned. Its values are int64, bool,
// string and table.
type table map[string]any

func (t table) number(name string) (int64, bool) {
	n, ok := t[name].(int64)
	return n, ok
}

func (t table) text(name string) string {
	s, _ := t[name].(string)
	return s
}

func (t table) flag(name string) bool {
	b, _ := t[name].(bool)
	return b
}

func (t table) table(name string) table {
	inner, _ := t[name].(table)
	return inner
}

// errSameTxg is the error of a snapshot: ZFS takes one of a file system in each txg.
var errSameTxg = fmt.Errorf("%w: another snapshot of it was taken in the same transaction group", ErrBusy)

// err returns the error of a program that returns one in the field "errno", or 0. The
// fields "op" and "name", where the program sets them, say what failed.
func (t table) err(op, dataset string) error {
	n, ok := t.number("errno")
	if !ok {
		return &Error{Op: op, Dataset: dataset, Detail: "unexpected result of the channel program: no errno"}
	}
	op, dataset = cmp.Or(t.text("op"), op), cmp.Or(t.text("name"), dataset)
	errno := syscall.Errno(n)
	switch {
	case errno == 0:
		return nil
	case errno == syscall.EAGAIN && op == string(verbSnapshot):
		return &Error{Op: op, Dataset: dataset, Kind: errSameTxg}
	}
	return errnoError(op, dataset, errno)
}
