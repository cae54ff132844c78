package zfs

import (
	"context"
	"errors"
	"strings"
	"syscall"

	"github.com/zfstpl/zfstpl/snapshotter/zfs/ioctl"
)

func (n *native) list(ctx context.Context, root, prefix string) ([]Dataset, error) {
	found, err := n.zfs.ListFilesystems(ctx, root)
	if err != nil {
		return nil, nativeError("list", root, err)
	}
	list := make([]Dataset, 0, len(found))
	for _, f := range found {
		var snapshots []ioctl.Snapshot
		if f.Latest != "" { // which nearly all clones lack, and a call costs as much as a file system does
			snapshots, err = n.zfs.ListSnapshots(ctx, f.Name)
		}
		if errors.Is(err, syscall.ENOENT) {
			continue // it went meanwhile
		}
		if err != nil {
			return nil, nativeError("list", f.Name, err)
		}
		list = append(list, datasetOf(f, snapshots, prefix))
	}
	return list, nil
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
