package zfs

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// List answers root and every file system below it, in no particular order.
// It fails with ErrNotFound where there is no root.
func (c *Client) List(ctx context.Context, root string) ([]Dataset, error) {
	if err := checkFilesystem("list", root); err != nil {
		return nil, err
	}
	found, err := c.listFilesystems(ctx, root)
	if err != nil {
		return nil, err
	}
	if err := c.listSnapshots(ctx, root, found); err != nil {
		return nil, err
	}
	list := make([]Dataset, 0, len(found))
	for _, d := range found {
		list = append(list, *d)
	}
	return list, nil
}

func (c *Client) listFilesystems(ctx context.Context, root string) (map[string]*Dataset, error) {
	out, err := c.run(ctx, "list", root, nil,
		"get", "-Hp", "-r", "-t", "filesystem", "-o", "name,property,source,value", "all", root)
	if err != nil {
		return nil, err
	}
	found := make(map[string]*Dataset)
	for _, f := range lines(out) {
		if len(f) != 4 {
			// A stranger's property with a tab or a newline in its value. Ours
			// have neither, and a native one cannot, so nothing of ours is lost.
			continue
		}
		d := found[f[0]]
		if d == nil {
			d = &Dataset{Name: f[0], Props: make(map[string]string)}
			found[f[0]] = d
		}
		if err := d.take(f[1], f[2], f[3]); err != nil {
			return nil, &Error{Op: "list", Dataset: f[0], Detail: err.Error()}
		}
	}
	return found, nil
}

// take stores one property of a listing.
func (d *Dataset) take(name, source, value string) (err error) {
	if strings.Contains(name, ":") {
		// "received" counts: a template that was sent here brought its own.
		if source == "local" || source == "received" {
			d.Props[name] = value
		}
		return nil
	}
	switch name {
	case "origin":
		if value != "-" {
			d.Origin = value
		}
	case "mountpoint":
		d.Mountpoint = value
	case "guid":
		d.GUID, err = strconv.ParseUint(value, 10, 64)
	case "createtxg":
		d.CreateTXG, err = strconv.ParseUint(value, 10, 64)
	case "used":
		d.Used, err = strconv.ParseUint(value, 10, 64)
	case "referenced":
		d.Refer, err = strconv.ParseUint(value, 10, 64)
	case "creation":
		var seconds int64
		seconds, err = strconv.ParseInt(value, 10, 64)
		d.Created = time.Unix(seconds, 0).UTC()
	}
	if err != nil {
		return fmt.Errorf("property %s: %w", name, err)
	}
	return nil
}

func (c *Client) listSnapshots(ctx context.Context, root string, found map[string]*Dataset) error {
	// Only the name, sorted by name: the one listing that opens no snapshot.
	out, err := c.run(ctx, "list", root, nil,
		"list", "-H", "-t", "snapshot", "-o", "name", "-s", "name", "-r", root)
	if err != nil {
		return err
	}
	for _, f := range lines(out) {
		fs, snapshot, _ := strings.Cut(f[0], "@")
		if d := found[fs]; d != nil {
			d.Snapshots = append(d.Snapshots, snapshot)
		}
	}
	return nil
}

// Used answers the bytes that only this file system and its snapshots hold.
// ZFS updates the figure with every txg, some seconds behind a writer.
func (c *Client) Used(ctx context.Context, filesystem string) (uint64, error) {
	if err := checkFilesystem("used", filesystem); err != nil {
		return 0, err
	}
	out, err := c.run(ctx, "used", filesystem, nil, "get", "-Hp", "-o", "value", "used", filesystem)
	if err != nil {
		return 0, err
	}
	used, err := strconv.ParseUint(strings.TrimSpace(string(out)), 10, 64)
	if err != nil {
		return 0, &Error{Op: "used", Dataset: filesystem, Detail: err.Error()}
	}
	return used, nil
}
