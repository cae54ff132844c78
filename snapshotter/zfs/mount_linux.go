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

// A mount is refused with EBUSY while the last mount of the same dataset is being
// taken away, elsewhere, and for as long as it is mounted the other way, read-only
// or not. Nothing tells when that is over.
const (
	attachTimeout  = 5 * time.Second
	attachInterval = 5 * time.Millisecond
)

// way is how something is mounted: read-only or not.
type way bool

const (
	forWriting way = false
	forReading way = true
)

// attach mounts a file system or snapshot without giving it a place in any
// mount namespace and answers its root. Closing the file unmounts it, and so
// does the end of this process: nothing can be left behind. A file system that
// is mounted elsewhere, in whatever namespace, is the same superblock; where it
// is read-only, so is this one.
//
// The ways are tried in turn. Whoever wants to write has only one.
func attach(ctx context.Context, name string, ways ...way) (*os.File, error) {
	return retryBusy(ctx, name, attachOnce, ways)
}

// persist mounts with once, again and again while it is busy.
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
	// The mount's own descriptor is an O_PATH one; syncfs wants a real one.
	defer mnt.Close()
	root, err := unix.Openat(int(mnt.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, mountError("mount", name, err)
	}
	return os.NewFile(uintptr(root), name), nil
}

// mountOnce returns an O_PATH descriptor of the root of a mount that has no place.
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

// MountAt mounts a file system, writable, on a directory. The peers of the
// directory's mount in other namespaces get the mount too. It outlives this
// process.
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

// Device returns the number by which programs see a file system (st_dev). It is the
// same for all mounts of it at a time.
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

// Attach mounts a snapshot without giving it a place in any mount namespace.
// Closing what it answers unmounts it, and so does the end of this process.
// While it is mounted, it cannot be destroyed.
func (c *Client) Attach(ctx context.Context, snapshot string) (io.Closer, error) {
	return c.AttachRoot(ctx, snapshot)
}

// AttachRoot is Attach that returns the snapshot's root directory. In a pool that is
// imported read-only a file system is as good as a snapshot.
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

// AttachWritable mounts a file system without giving it a place in any mount
// namespace, and answers its root directory. Closing that unmounts it, and so
// does the end of this process.
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

// Flush writes to the pool's memory what programs wrote into a file system
// through mmap, which a snapshot would otherwise miss, even after munmap and
// close. It works wherever the file system is mounted, and where it is not.
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

// Objects answers how many objects (files, directories, symbolic links and so
// on) a file system or snapshot holds, without walking it.
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
