package zfs

import (
	"context"
	"syscall"
)

// A driver is a way to call ZFS. There are two: native calls into the kernel
// module, and the zfs command. Names and properties were checked before a
// driver sees them, and its errors are *Error.
type driver interface {
	// program runs a channel program in the client's pool and answers what it
	// returned. dataset is for the error.
	program(ctx context.Context, op, dataset, script string, m mode, argv []string) (table, error)

	// clone makes a clone with properties, native ones too. It is several
	// transactions, user properties being the last; when one fails, the clone
	// is taken back.
	clone(ctx context.Context, snapshot, name string, props map[string]string) error

	// list answers root and every file system below it, with the user
	// properties set there whose names begin with prefix.
	list(ctx context.Context, root, prefix string) ([]Dataset, error)

	written(ctx context.Context, filesystem, snapshot string) (uint64, error)
	space(ctx context.Context, filesystem string) (Space, error)
	poolState(ctx context.Context) (PoolState, error)
	waitFreed(ctx context.Context) error

	// set sets native properties, and mounts and unmounts nothing.
	set(ctx context.Context, filesystem string, props map[string]string) error

	// The following set up a base. They run the command in both drivers: it
	// knows every property there is, and how to mount.
	create(ctx context.Context, filesystem string, props map[string]string) error
	properties(ctx context.Context, filesystem string, names []string) (map[string]Property, error)
	propertiesOf(ctx context.Context, filesystems, names []string) (map[string]map[string]Property, error)
	poolProperties(ctx context.Context, names []string) (map[string]string, error)
	release(ctx context.Context) (Release, error)
	mount(ctx context.Context, filesystem string) error

	close() error
}

// mode tells whether a channel program may change the pool. A read-only one
// waits for no txg.
type mode bool

const (
	readOnly  mode = false
	readWrite mode = true
)

// Limits of a channel program: the greatest the kernel allows. They are bounds,
// not reservations.
const (
	maxInstructions = 100_000_000
	maxMemory       = 100 << 20 // bytes
)

// table is a Lua table that a channel program returned. Its values are int64,
// bool, string and table.
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

// errno answers the field of that name of a program that always has it.
func (t table) errno(op, dataset string) (syscall.Errno, error) {
	n, ok := t.number("errno")
	if !ok {
		return 0, &Error{Op: op, Dataset: dataset, Detail: "unexpected answer of the channel program: it has no errno"}
	}
	return syscall.Errno(n), nil
}
