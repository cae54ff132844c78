package zfs

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"syscall"

	"github.com/zfstpl/zfstpl/snapshotter/zfs/ioctl"
	"github.com/zfstpl/zfstpl/snapshotter/zfs/nvlist"
)

// native is the driver that calls the kernel module. It leaves the setup of a base to
// the command.
type native struct {
	*commands
	zfs *ioctl.Handle
}

// openNative returns a driver after a self-test on a file system of the pool, which
// proves that the package and the kernel agree.
func openNative(ctx context.Context, pool, filesystem string) (*native, error) {
	handle, err := ioctl.Open(ctx)
	if err != nil {
		return nil, nativeError("open", pool, err)
	}
	if err := handle.SelfTest(ctx, filesystem); err != nil {
		handle.Close()
		return nil, nativeError("open", pool, err)
	}
	return &native{commands: &commands{pool: pool}, zfs: handle}, nil
}

func (n *native) close() error { return n.zfs.Close() }

func (n *native) program(ctx context.Context, op, dataset, script string, m mode, argv []string) (table, error) {
	value, err := n.zfs.Run(ctx, n.pool, ioctl.Program{Source: script, Args: argv, ReadOnly: m == readOnly})
	if errors.Is(err, syscall.EROFS) {
		return nil, &Error{Op: op, Dataset: dataset, Kind: ErrReadOnly}
	}
	if err != nil {
		return nil, nativeError(op, dataset, err)
	}
	list, ok := value.(nvlist.List)
	if !ok && value != nil {
		return nil, &Error{Op: op, Dataset: dataset, Detail: "unexpected result of the channel program: not a table"}
	}
	return fromList(list), nil
}

func fromList(list nvlist.List) table {
	t := make(table, len(list))
	for _, pair := range list {
		if inner, ok := pair.Value.(nvlist.List); ok {
			t[pair.Name] = fromList(inner)
		} else {
			t[pair.Name] = pair.Value
		}
	}
	return t
}

func (n *native) clone(ctx context.Context, snapshot, name string, sets []Op) error {
	props := make(map[string]string)
	for _, op := range sets {
		props[op.prop] = op.value
	}
	return nativeError("clone", name, n.zfs.Clone(ctx, snapshot, name, props))
}

func (n *native) set(ctx context.Context, filesystem string, props map[string]string) error {
	return nativeError("set", filesystem, n.zfs.SetProperties(ctx, filesystem, props))
}

func (n *native) written(ctx context.Context, filesystem, snapshot string) (uint64, error) {
	bytes, err := n.zfs.Written(ctx, filesystem, snapshot)
	return bytes, nativeError("written", filesystem, err)
}

func (n *native) space(ctx context.Context, filesystem string) (Space, error) {
	d, err := n.zfs.Stat(ctx, filesystem)
	return Space{Used: d.Used, Referenced: d.Referenced, Available: d.Available, Quota: d.Quota}, nativeError("space", filesystem, err)
}

func (n *native) syncDisabled(ctx context.Context, filesystem string) (bool, error) {
	d, err := n.zfs.Stat(ctx, filesystem)
	return d.Sync == ioctl.SyncDisabled, nativeError("get", filesystem, err)
}

func (n *native) poolState(ctx context.Context) (PoolState, error) {
	p, err := n.zfs.Pool(ctx, n.pool)
	return PoolState{Freeing: p.Freeing, Checkpoint: p.Checkpoint, Suspended: p.Suspended}, nativeError("state", n.pool, err)
}

func (n *native) waitFreed(ctx context.Context) error {
	_, err := n.zfs.WaitFree(ctx, n.pool)
	for range deferredGroups {
		if err == nil {
			err = n.zfs.Sync(ctx, n.pool)
		}
	}
	return nativeError("wait", n.pool, err)
}

// nativeError converts an error of package ioctl; nil stays nil.
func nativeError(op, dataset string, err error) error {
	if err == nil {
		return nil
	}
	var errno syscall.Errno
	switch {
	case errors.Is(err, context.Canceled):
		return &Error{Op: op, Dataset: dataset, Kind: context.Canceled}
	case errors.Is(err, context.DeadlineExceeded):
		return &Error{Op: op, Dataset: dataset, Kind: context.DeadlineExceeded}
	case errors.Is(err, ioctl.ErrUnsupported):
		return &Error{Op: op, Dataset: dataset, Kind: ErrUnavailable, Detail: err.Error()}
	case !errors.As(err, &errno):
		return &Error{Op: op, Dataset: dataset, Detail: err.Error()}
	}
	e := errnoError(op, dataset, errno)
	var call *ioctl.Error
	if errors.As(err, &call) && (call.Message != "" || len(call.Each) > 0) {
		e.Detail = reasons(call)
	}
	return e
}

// reasons returns the kernel's messages in addition to the errno.
func reasons(e *ioctl.Error) string {
	var messages []string
	if e.Message != "" {
		messages = append(messages, strings.Join(strings.Fields(e.Message), " "))
	}
	for _, name := range slices.Sorted(maps.Keys(e.Each)) {
		messages = append(messages, name+": "+e.Each[name].Error())
	}
	return strings.Join(messages, "; ")
}
