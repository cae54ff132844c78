package zfs

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"syscall"
	"time"

	"github.com/zfstpl/zfstpl/snapshotter/zfs/ioctl"
)

// ObjectRange is a range of objects that may have changed between two snapshots.
type ObjectRange = ioctl.ObjectRange

// Object is the state of a file, directory or other object, by its number.
type Object = ioctl.Object

// ChangedObjects returns the objects that may have changed between two snapshots, in
// the order of their numbers: all that have, and some that have not. The cost depends
// on the changes, not on the size. from must be an older snapshot of the same file
// system or of one of its origins; otherwise ChangedObjects fails with ErrInvalid. The
// command client fails with ErrUnavailable.
func (c *Client) ChangedObjects(ctx context.Context, from, to string) ([]ObjectRange, error) {
	const op = "diff"
	for _, name := range []string{from, to} {
		if err := checkSnapshot(op, name); err != nil {
			return nil, err
		}
	}
	handle, err := c.handle(op, to)
	if err != nil {
		return nil, err
	}
	defer c.around(op)()
	list, err := handle.Diff(ctx, from, to)
	return list, nativeError(op, to, err)
}

// Object returns the state of an object in a snapshot. It fails with ErrNotFound if no
// file, directory or the like has that number. The cost grows with the size of the
// object's directory. The command client fails with ErrUnavailable.
func (c *Client) Object(ctx context.Context, snapshot string, object uint64) (Object, error) {
	const op = "object"
	if err := checkSnapshot(op, snapshot); err != nil {
		return Object{}, err
	}
	handle, err := c.handle(op, snapshot)
	if err != nil {
		return Object{}, err
	}
	o, err := handle.Object(ctx, snapshot, object)
	if errors.Is(err, syscall.EOPNOTSUPP) {
		// An internal object, such as the table of attributes.
		return Object{}, &Error{Op: op, Dataset: snapshot, Kind: ErrNotFound}
	}
	return o, nativeError(op, snapshot, err)
}

// handle returns the ioctl handle of a native client.
func (c *Client) handle(op, dataset string) (*ioctl.Handle, error) {
	if n, ok := c.driver.(*native); ok {
		return n.zfs, nil
	}
	return nil, &Error{Op: op, Dataset: dataset, Kind: ErrUnavailable, Detail: "not available with the zfs command"}
}

// TemporaryPrefix begins the short names of the snapshots that TakeTemporary takes.
const TemporaryPrefix = "zfstpl-diff-"

// TemporarySnapshot is a snapshot that Close destroys.
type TemporarySnapshot struct {
	Snapshot string
	client   *Client
}

// TakeTemporary takes a snapshot of the present state of a file system, including what
// programs wrote through mmap. If the process ends without closing the result, the
// snapshot stays; its short name begins with TemporaryPrefix.
//
// The kernel's own temporary snapshots (ZFS_IOC_TMP_SNAPSHOT) belong to an open
// descriptor. They are not used: if a process is killed while it has one mounted, the
// snapshot stays held, and cannot be destroyed until the pool is imported again.
//
// In a pool that is imported read-only nothing changes, so the file system itself is
// returned as its snapshot.
func (c *Client) TakeTemporary(ctx context.Context, filesystem string) (*TemporarySnapshot, error) {
	if c.readOnly {
		return &TemporarySnapshot{Snapshot: filesystem}, nil
	}
	name := filesystem + "@" + TemporaryPrefix + rand.Text()
	if err := c.Flush(ctx, filesystem); err != nil {
		return nil, err
	}
	if err := c.Apply(ctx, Snapshot(name)); err != nil {
		return nil, err
	}
	return &TemporarySnapshot{name, c}, nil
}

// Close retries a busy snapshot for destroyTimeout, and then leaves it to the next
// start.
const (
	destroyTimeout  = 5 * time.Second
	destroyInterval = 5 * time.Millisecond
)

// Close destroys the snapshot, which must not be mounted. It may still be busy for a
// moment: a command that this process starts has copies of all descriptors until its
// exec, and a mount ends with the last descriptor. If a promote moved the snapshot to
// another file system meanwhile, Close destroys it there.
func (f *TemporarySnapshot) Close() error {
	if f.client == nil {
		return nil // it is not a snapshot
	}
	deadline := time.Now().Add(destroyTimeout)
	for {
		err := f.client.destroySnapshot(context.Background(), f.Snapshot)
		if errors.Is(err, ErrNotFound) {
			return f.destroyPromoted()
		}
		if !errors.Is(err, ErrBusy) || time.Now().After(deadline) {
			return err
		}
		time.Sleep(destroyInterval)
	}
}

// destroyPromoted destroys the snapshot in the file system that promote moved it to.
func (f *TemporarySnapshot) destroyPromoted() error {
	ctx := context.Background()
	filesystem, short, _ := strings.Cut(f.Snapshot, "@")
	list, err := f.client.List(ctx, filesystem)
	if errors.Is(err, ErrNotFound) {
		return nil // it was destroyed with its file system
	}
	if err != nil {
		return err
	}
	for _, d := range list {
		if origin, _, ok := strings.Cut(d.Origin, "@"); ok && d.Name == filesystem {
			return f.client.DestroySnapshot(ctx, origin+"@"+short)
		}
	}
	return nil
}
