package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/zfstpl/zfstpl/snapshotter"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// Cleaner cleans up a base while no daemon serves it.
type Cleaner interface {
	Clean(ctx context.Context, report func(snapshotter.CleanupProgress)) error
	io.Closer
}

// purposeCleanup is the purpose in the lock of an owner that only cleans up.
const purposeCleanup = "cleaning up"

// OpenCleaner locks the base and returns its cleaner. The cleaner resumes from the list
// that the last owner kept if that is valid, and otherwise lists the pool.
func OpenCleaner(ctx context.Context, config Config) (cleaner Cleaner, err error) {
	_, err = newInstance(ctx, config, func(i *Instance) error {
		if _, err := i.own(ctx, config, purposeCleanup); err != nil {
			return err
		}
		mark, err := ReadMark(ctx, i.pool, i.base)
		if err != nil {
			return err
		}
		resumed, err := snapshotter.Resume(ctx, i.pool, i.settings(config), mark)
		if err != nil {
			return err
		}
		if resumed != nil {
			cleaner = ownedCleaner{resumed, i}
			return nil
		}
		cleaner = i
		i.Snapshotter, err = snapshotter.New(ctx, i.pool, i.settings(config))
		return err
	})
	return cleaner, err
}

// ownedCleaner is a cleaner that closes its instance too.
type ownedCleaner struct {
	*snapshotter.Cleaner
	owner *Instance
}

func (c ownedCleaner) Close() error { return errors.Join(c.Cleaner.Close(), c.owner.Close()) }

// ReadMark returns the cleanup mark of a base.
func ReadMark(ctx context.Context, pool *zfs.Client, base layout.Base) (layout.CleanupMark, error) {
	props, err := pool.Properties(ctx, base.String(), layout.CleanupProperty)
	if errors.Is(err, zfs.ErrNotFound) {
		return layout.CleanupMark{}, fmt.Errorf("dataset %s does not exist: make it with 'zfstpl init %s'", base, base)
	}
	if v := props[layout.CleanupProperty]; err == nil && v.Local {
		return layout.ParseCleanupMark(v.Value), nil
	}
	return layout.CleanupMark{}, err
}

// StopCleaner stops a cleanup that another process runs without a daemon, with SIGTERM,
// and reports whether there was one. The error is an *InUseError if a daemon has the base.
func StopCleaner(ctx context.Context, config Config) (stopped bool, err error) {
	i, err := newInstance(ctx, config, func(i *Instance) error { return i.mount(ctx, config) })
	if err != nil {
		return false, err
	}
	stopped, err = stopOwner(i.root, i.base)
	return stopped, errors.Join(err, i.Close())
}

// stopOwner sends SIGTERM to the owner of a base's lock if that only cleans up. It opens
// the process before it checks the lock, so it never signals another process that was
// given the same PID.
func stopOwner(root *os.Root, base layout.Base) (bool, error) {
	file, err := root.Open(lockName)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer file.Close()
	l := &baseLock{file}
	owner, pid := l.readOwner()
	switch {
	case !l.taken() || pid == 0:
		return false, nil
	case !strings.HasSuffix(owner, purposeCleanup):
		return false, &InUseError{Base: base, Owner: owner, cleaning: true}
	}
	process, err := os.FindProcess(pid)
	if err != nil {
		return false, nil // it has ended
	}
	defer func() { _ = process.Release() }() // nothing depends on its error
	if now, _ := l.readOwner(); now != owner || !l.taken() {
		return false, nil
	}
	if !l.openIn(pid) {
		return false, fmt.Errorf("dataset %s is locked by %s, and no process with that PID has the lock in this PID namespace: stop it where it runs", base, owner)
	}
	err = process.Signal(syscall.SIGTERM)
	if errors.Is(err, os.ErrProcessDone) {
		return false, nil
	}
	return err == nil, err
}

// openIn reports whether a process has the lock's file open. The PID in the lock may be
// one of another PID namespace, and be an unrelated process here.
func (l *baseLock) openIn(pid int) bool {
	if _, err := os.Stat("/proc/self/fd"); err != nil {
		return true // there is no /proc to check
	}
	want, err := l.file.Stat()
	if err != nil {
		return false
	}
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	return err == nil && slices.ContainsFunc(entries, func(e os.DirEntry) bool {
		is, err := os.Stat(filepath.Join(dir, e.Name()))
		return err == nil && os.SameFile(is, want)
	})
}

// taken reports whether a process has the lock.
func (l *baseLock) taken() bool {
	err := unix.Flock(int(l.file.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	return errors.Is(err, unix.EWOULDBLOCK)
}
