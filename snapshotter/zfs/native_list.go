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
	ListSnapshots(ctx context.Context, filesystem string) ([]string, error)
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
		var snapshots []string
		var err error
		// Nearly all clones have no snapshot, and a call costs as much as a file system.
		if f.Latest != "" {
			snapshots, err = kernel.ListSnapshots(ctx, f.Name)
		}
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

func datasetOf(f ioctl.Dataset, snapshots []string, prefix string) Dataset {
	d := Dataset{
		Name: f.Name, Origin: f.Origin, GUID: f.GUID, CreateTXG: f.CreateTXG, Created: f.Created,
		Used: f.Used, Refer: f.Referenced, Snapshots: snapshots, Mountpoint: f.Mountpoint, Props: make(map[string]string),
	}
	for name, value := range f.User {
		if strings.HasPrefix(name, prefix) {
			d.Props[name] = value
		}
	}
	return d
}
