package plugin

import (
	"context"
	"errors"

	"github.com/zfstpl/zfstpl/snapshotter/inspect"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// purposeLog is the purpose in the lock of a command that discards a log.
const purposeLog = "discarding the log"

// LogState returns the state of the log of a base. It needs no daemon and changes nothing.
func LogState(ctx context.Context, pool *zfs.Client, base layout.Base) (state inspect.LogState, err error) {
	root, err := findRoot(ctx, pool, base)
	if err != nil {
		return state, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	return inspect.Log(ctx, pool, base, root)
}

// DiscardLog locks the base of config and calls inspect.DiscardLog.
func DiscardLog(ctx context.Context, config Config) (renamed string, err error) {
	i, err := newInstance(ctx, config, func(i *Instance) error {
		if _, err := i.own(ctx, config, purposeLog); err != nil {
			return err
		}
		renamed, err = inspect.DiscardLog(ctx, i.pool, i.base, i.root)
		return err
	})
	if err != nil {
		return "", err
	}
	return renamed, i.Close()
}
