package inspect

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/zfstpl/zfstpl/snapshotter/internal/recordlog"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/setup"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// LogState describes the log of a base.
type LogState struct {
	Exists   bool   // the base has a log
	Position string // the log's ID and the number that the pool needs at least
	Entries  int    // the entries that are in the log now
	Problem  error  // why the log does not belong to the state of the pool, or nil
}

// Log returns the state of the log of a base with the given root directory. It changes nothing.
func Log(ctx context.Context, pool Lister, base layout.Base, root *os.Root) (LogState, error) {
	list, err := pool.List(ctx, base.String())
	if err != nil {
		return LogState{}, setup.ListError(base, err)
	}
	if err := setup.Check(base, list); err != nil {
		return LogState{}, err
	}
	position, err := recordlog.PositionIn(base, list)
	if err != nil || position == (recordlog.Position{}) {
		return LogState{}, err
	}
	contents, readErr := recordlog.Dir{Root: root}.Read(base)
	state := LogState{Exists: true, Position: position.String(), Problem: recordlog.Check(base, position, contents, readErr)}
	if readErr == nil {
		state.Entries = len(contents.Entries)
	}
	return state, nil
}

// Discarder has the operations of ZFS that DiscardLog needs.
type Discarder interface {
	Lister
	Apply(ctx context.Context, ops ...zfs.Op) error
}

// DiscardLog makes a base forget a log that does not belong to the state of the pool, and renames
// the file, if there is one. It returns the new name of the file, or "". The next start creates
// an empty log. Runtimes that only the log named are garbage from then on. DiscardLog returns an
// error, and changes nothing, if the log belongs to the pool. The caller holds the base's lock.
func DiscardLog(ctx context.Context, pool Discarder, base layout.Base, root *os.Root) (renamed string, err error) {
	state, err := Log(ctx, pool, base, root)
	if err != nil {
		return "", err
	}
	if state.Problem == nil {
		return "", fmt.Errorf("the log of %s belongs to the state of its pool: there is no reason to discard it", base)
	}
	if renamed, err = setAside(root); err != nil {
		return "", err
	}
	return renamed, pool.Apply(ctx, zfs.Inherit(base.String(), recordlog.PositionProperty))
}

// setAside renames the file of a log to a name that is free.
func setAside(root *os.Root) (string, error) {
	for n := 1; ; n++ {
		name := fmt.Sprintf("%s.discarded-%d", recordlog.Name, n)
		if _, err := root.Lstat(name); err == nil {
			continue
		}
		err := root.Rename(recordlog.Name, name)
		if errors.Is(err, fs.ErrNotExist) {
			return "", nil
		}
		return name, err
	}
}
