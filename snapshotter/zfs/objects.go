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

// ObjectRange is a range of objects that may have changed between two
// snapshots.
type ObjectRange = ioctl.ObjectRange

// Object is a file, directory or the like, as ZFS knows it by its number.
type Object = ioctl.Object

// ChangedObjects answers which objects may have changed between two snapshots,
// in the order of their numbers: all that have, and some that have not. It costs
// what has changed, not what there is. from is of the same file system as to, or
// of one of its origins, and older; else it fails with ErrInvalid. Only the
// native client can tell; the other fails with ErrUnavailable.
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

// Object answers what an object of a snapshot is, and ErrNotFound where no file,
// directory or the like has that number. It costs more the larger the object's directory is. Only
// the native client can tell; the other fails with ErrUnavailable.
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
		// The file system's own: a table of its attributes and the like.
		return Object{}, &Error{Op: op, Dataset: snapshot, Kind: ErrNotFound}
	}
	return o, nativeError(op, snapshot, err)
}

// handle answers the way into the kernel of a native client.
func (c *Client) handle(op, dataset string) (*ioctl.Handle, error) {
	if n, ok := c.unwatched().(*native); ok {
		return n.zfs, nil
	}
	return nil, &Error{Op: op, Dataset: dataset, Kind: ErrUnavailable, Detail: "the zfs command does not tell"}
}

// TemporaryPrefix begins the short names of the snapshots that Freeze takes.
const TemporaryPrefix = "zfstpl-diff-"

// Frozen is a snapshot that somebody looks at and that goes when he is done.
type TemporarySnapshot struct {
	Snapshot string
	client   *Client
}

// Freeze takes a snapshot of a file system as it is now, with what programs wrote
// through mmap. When this process ends without closing what it answers, the
// snapshot stays: it has a short name that begins with TemporaryPrefix.
//
// The kernel has temporary snapshots of its own (ZFS_IOC_TMP_SNAPSHOT), which
// belong to an open descriptor. They do not go with a process that is killed
// while it has them mounted, and then are held, so that nobody can destroy them
// before the pool is imported again.
//
// In a pool that is imported read-only nothing changes: the file system itself serves as
// its snapshot there.
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

// A snapshot that is still busy goes within goTime, or is left to the next start.
const (
	destroyTimeout  = 5 * time.Second
	destroyInterval = 5 * time.Millisecond
)

// Close destroys the snapshot, which nothing may have mounted. It may be busy for a
// moment all the same: a command that this process starts has copies of all its
// descriptors until it gets to its exec, and a mount ends with the last of them. A
// commit meanwhile has taken it along to the new template.
func (f *TemporarySnapshot) Close() error {
	if f.client == nil {
		return nil // it is no snapshot
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

// follow destroys the snapshot where promote has brought it.
func (f *TemporarySnapshot) destroyPromoted() error {
	ctx := context.Background()
	filesystem, short, _ := strings.Cut(f.Snapshot, "@")
	list, err := f.client.List(ctx, filesystem)
	if errors.Is(err, ErrNotFound) {
		return nil // it went with its file system
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
