package zfs

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Mounting fails with EBUSY while the last mount of the same dataset is being
// unmounted, and as long as the dataset is mounted in the other mode, read-only or
// writable. Nothing reports the end of that.
const (
	attachTimeout  = 5 * time.Second
	attachInterval = 5 * time.Millisecond
)

// way is the mode of a mount.
type way bool

const (
	forWriting way = false
	forReading way = true
)

// attach mounts a file system or snapshot outside of every mount namespace and returns
// its root. The mount ends when the file is closed or the process ends, so that
// nothing can be left behind. All mounts of a file system have the same superblock; if
// that is read-only, so is this mount.
//
// attach tries the ways in turn. A caller that needs to write passes only one.
func attach(ctx context.Context, name string, ways ...way) (*os.File, error) {
	return retryBusy(ctx, name, attachOnce, ways)
}

// retryBusy calls once until the mount is not busy, for attachTimeout at most.
func retryBusy(ctx context.Context, name string, once func(string, way) (*os.File, error), ways []way) (*os.File, error) {
	deadline := time.Now().Add(attachTimeout)
	for i := 0; ; i++ {
		root, err := once(name, ways[i%len(ways)])
		if !errors.Is(err, ErrBusy) || time.Now().After(deadline) {
			return root, err
		}
		select {
		case <-time.After(attachInterval):
		case <-ctx.Done():
			return nil, &Error{Op: "mount", Dataset: name, Kind: ctx.Err()}
		}
	}
}

func attachOnce(name string, as way) (*os.File, error) {
	mnt, err := mountOnce(name, as)
	if err != nil {
		return nil, err
	}
	// The descriptor of the mount is an O_PATH one; syncfs needs a real one.
	defer mnt.Close()
	root, err := unix.Openat(int(mnt.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, mountError("mount", name, err)
	}
	return os.NewFile(uintptr(root), name), nil
}

// mountOnce returns an O_PATH descriptor of the root of a mount outside of every mount
// namespace.
func mountOnce(name string, as way) (*os.File, error) {
	fs, err := unix.Fsopen("zfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, mountError("mount", name, err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigSetString(fs, "source", name); err != nil {
		return nil, mountError("mount", name, err)
	}
	attrs := 0
	if as == forReading {
		attrs = unix.MOUNT_ATTR_RDONLY
		if err := unix.FsconfigSetFlag(fs, "ro"); err != nil {
			return nil, mountError("mount", name, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, mountError("mount", name, err)
	}
	mnt, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attrs)
	if err != nil {
		return nil, mountError("mount", name, err)
	}
	return os.NewFile(uintptr(mnt), name), nil
}

// MountAt mounts a file system, writable, on a directory. The mount propagates to the
// peers of the directory's mount and outlives this process.
func (c *Client) MountAt(ctx context.Context, filesystem, dir string) error {
	if err := checkFilesystem("mount", filesystem); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	defer c.around("mount at")()
	mnt, err := retryBusy(ctx, filesystem, mountOnce, []way{forWriting})
	if err != nil {
		return err
	}
	defer mnt.Close()
	if err := unix.MoveMount(int(mnt.Fd()), "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return mountError("mount", filesystem, err)
	}
	return nil
}

// Device returns the device number of a mounted file system (st_dev). All mounts of
// the file system have the same number at a time.
func (c *Client) Device(ctx context.Context, filesystem string) (uint64, error) {
	if err := checkFilesystem("device", filesystem); err != nil {
		return 0, err
	}
	root, err := attach(ctx, filesystem, forWriting, forReading)
	if err != nil {
		return 0, err
	}
	defer root.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(root.Fd()), &st); err != nil {
		return 0, mountError("device", filesystem, err)
	}
	return st.Dev, nil
}

// Attach mounts a snapshot outside of every mount namespace. The mount ends when the
// result is closed or the process ends. A mounted snapshot cannot be destroyed.
func (c *Client) Attach(ctx context.Context, snapshot string) (io.Closer, error) {
	return c.AttachRoot(ctx, snapshot)
}

// AttachRoot is Attach that returns the root directory of the snapshot. In a pool that
// is imported read-only it also accepts a file system.
func (c *Client) AttachRoot(ctx context.Context, snapshot string) (*os.File, error) {
	check := checkSnapshot
	if c.readOnly && !strings.Contains(snapshot, "@") {
		check = checkFilesystem
	}
	if err := check("mount", snapshot); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	defer c.around("attach")()
	return attach(ctx, snapshot, forReading)
}

// AttachWritable mounts a file system, writable, outside of every mount namespace and
// returns its root directory. The mount ends when that is closed or the process ends.
func (c *Client) AttachWritable(ctx context.Context, filesystem string) (*os.File, error) {
	if err := checkFilesystem("mount", filesystem); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	defer c.around("attach writable")()
	return attach(ctx, filesystem, forWriting)
}

func mountError(op, name string, err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errnoError(op, name, errno)
	}
	return &Error{Op: op, Dataset: name, Detail: err.Error()}
}

// Flush writes to the pool's memory what programs wrote to a file system through mmap,
// which a snapshot would miss otherwise, even after munmap and close. The file system
// may be mounted anywhere or nowhere.
func (c *Client) Flush(ctx context.Context, filesystem string) error {
	if err := checkFilesystem("flush", filesystem); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	defer c.around("flush")()
	root, err := attach(ctx, filesystem, forWriting, forReading)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := unix.Syncfs(int(root.Fd())); err != nil {
		return mountError("flush", filesystem, err)
	}
	return nil
}

// CreateIntentLog has ZFS create the intent log of a file system. ZFS does that when a program
// first synchronises a change, which then waits for a txg. The change is that of the time at
// which the root directory was last read, to what it is.
func (c *Client) CreateIntentLog(ctx context.Context, filesystem string) error {
	if err := checkFilesystem("create intent log", filesystem); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	defer c.around("create intent log")()
	root, err := attach(ctx, filesystem, forWriting)
	if err != nil {
		return err
	}
	defer root.Close()
	var st unix.Stat_t
	err = unix.Fstat(int(root.Fd()), &st)
	if err == nil {
		err = unix.UtimesNanoAt(int(root.Fd()), ".", []unix.Timespec{st.Atim, {Nsec: unix.UTIME_OMIT}}, 0)
	}
	if err == nil {
		err = unix.Syncfs(int(root.Fd()))
	}
	if err != nil {
		return mountError("create intent log", filesystem, err)
	}
	return nil
}

// Objects returns the number of objects (files, directories, symbolic links and so on)
// of a file system or snapshot, without walking it.
func (c *Client) Objects(ctx context.Context, name string) (uint64, error) {
	snapshot := checkSnapshot("objects", name) == nil
	if !snapshot {
		if err := checkFilesystem("objects", name); err != nil {
			return 0, err
		}
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	defer c.around("objects")()
	ways := []way{forWriting, forReading}
	if snapshot {
		ways = []way{forReading}
	}
	root, err := attach(ctx, name, ways...)
	if err != nil {
		return 0, err
	}
	defer root.Close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(root.Fd()), &st); err != nil {
		return 0, mountError("objects", name, err)
	}
	return st.Files - min(st.Files, st.Ffree), nil
}
