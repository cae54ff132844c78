package zfs

import (
	"context"
	"errors"
	"strings"
	"syscall"

	"github.com/zfstpl/zfstpl/snapshotter/zfs/ioctl"
)

// lister is what a listing needs from the kernel. *ioctl.Handle implements it.
type lister interface {
	ListFilesystems(ctx context.Context, root string) ([]ioctl.Dataset, error)
	ListSnapshots(ctx context.Context, filesystem string) ([]ioctl.Snapshot, error)
}

func (n *native) list(ctx context.Context, root, prefix string) ([]Dataset, error) {
	return listFrom(ctx, n.zfs, root, prefix)
}

// listFrom lists the file systems, then the snapshots of each. It omits a file system
// that is destroyed in between.
func listFrom(ctx context.Context, kernel lister, root, prefix string) ([]Dataset, error) {
	found, err := kernel.ListFilesystems(ctx, root)
	if err != nil {
		return nil, nativeError("list", root, err)
	}
	list := make([]Dataset, 0, len(found))
	for _, f := range found {
		snapshots, err := snapshotsOf(ctx, kernel, f)
		switch {
		case errors.Is(err, syscall.ENOENT) && f.Name != root:
			continue // it was destroyed meanwhile
		case err != nil:
			return nil, nativeError("list", f.Name, err)
		}
		list = append(list, datasetOf(f, snapshots, prefix))
	}
	return list, nil
}

// snapshotsOf makes no call for a file system without snapshots: nearly all clones
// have none, and a call costs as much as a file system.
func snapshotsOf(ctx context.Context, kernel lister, f ioctl.Dataset) ([]ioctl.Snapshot, error) {
	if f.Latest == "" {
		return nil, nil
	}
	return kernel.ListSnapshots(ctx, f.Name)
}

func datasetOf(f ioctl.Dataset, snapshots []ioctl.Snapshot, prefix string) Dataset {
	d := Dataset{
		Name: f.Name, Origin: f.Origin, GUID: f.GUID, CreateTXG: f.CreateTXG, Created: f.Created,
		Used: f.Used, Refer: f.Referenced, Mountpoint: f.Mountpoint, Props: make(map[string]string),
	}
	for name, p := range f.User {
		if strings.HasPrefix(name, prefix) {
			d.Props[name] = p.Value
		}
	}
	for _, s := range snapshots {
		d.Snapshots = append(d.Snapshots, s.Name)
	}
	return d
}
