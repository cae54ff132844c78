package zfs

import (
	"context"
	_ "embed"
	"fmt"
	"strconv"
	"strings"
	"time"
)

//go:embed lua/properties.lua
var propertiesScript string

// List answers root and every file system below it, in no particular order,
// with those user properties that Open asked for. It fails with ErrNotFound
// where there is no root.
func (c *Client) List(ctx context.Context, root string) ([]Dataset, error) {
	if err := checkFilesystem("list", root); err != nil {
		return nil, err
	}
	found, err := c.listFilesystems(ctx, root)
	if err != nil {
		return nil, err
	}
	list := make([]Dataset, 0, len(found))
	for _, d := range found {
		list = append(list, *d)
	}
	return list, nil
}

// listed are the native properties of a listing. None of them makes ZFS open a
// snapshot, which would walk all its clones; and 'zfs get all' takes a third of
// a second for each file system in the emulated testbed, these take little.
var listed = []string{"name", "origin", "guid", "createtxg", "creation", "used", "referenced", "mountpoint"}

func (c *Client) listFilesystems(ctx context.Context, root string) (map[string]*Dataset, error) {
	out, err := c.run(ctx, "list", root, nil,
		"list", "-Hp", "-r", "-t", "filesystem", "-o", strings.Join(listed, ","), root)
	if err != nil {
		return nil, err
	}
	type below struct {
		Props     map[string]string
		Snapshots map[string]string // numbers, which JSON's names are text, to full names
	}
	more := make(map[string]below)
	if err := c.program(ctx, "list", root, propertiesScript, readOnly, []string{root, c.prefix}, &more); err != nil {
		return nil, err
	}
	found := make(map[string]*Dataset)
	for _, row := range lines(out) {
		d, err := readDataset(row)
		if err != nil {
			return nil, &Error{Op: "list", Dataset: root, Detail: err.Error()}
		}
		if d.Props = more[d.Name].Props; d.Props == nil {
			d.Props = make(map[string]string)
		}
		for _, snapshot := range more[d.Name].Snapshots {
			d.Snapshots = append(d.Snapshots, strings.TrimPrefix(snapshot, d.Name+"@"))
		}
		found[d.Name] = d
	}
	return found, nil
}

// readDataset reads a row of the listed properties.
func readDataset(row []string) (*Dataset, error) {
	if len(row) != len(listed) {
		return nil, fmt.Errorf("a row has %d columns instead of %d: %q", len(row), len(listed), row)
	}
	d := &Dataset{Name: row[0], Mountpoint: row[7]}
	if row[1] != "-" {
		d.Origin = row[1]
	}
	for _, n := range []struct {
		column int
		into   *uint64
	}{{2, &d.GUID}, {3, &d.CreateTXG}, {5, &d.Used}, {6, &d.Refer}} {
		value, err := strconv.ParseUint(row[n.column], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("property %s of %s: %w", listed[n.column], d.Name, err)
		}
		*n.into = value
	}
	seconds, err := strconv.ParseInt(row[4], 10, 64)
	if err != nil {
		return nil, fmt.Errorf("property creation of %s: %w", d.Name, err)
	}
	d.Created = time.Unix(seconds, 0).UTC()
	return d, nil
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

// Property is a property of a dataset: its value, and whether it is set there
// and not inherited or a default.
type Property struct {
	Value string
	Here  bool
}

// Properties answers some properties of one file system, native or of users.
func (c *Client) Properties(ctx context.Context, filesystem string, names ...string) (map[string]Property, error) {
	if err := checkFilesystem("get", filesystem); err != nil {
		return nil, err
	}
	out, err := c.run(ctx, "get", filesystem, nil,
		"get", "-Hp", "-o", "property,source,value", strings.Join(names, ","), filesystem)
	if err != nil {
		return nil, err
	}
	found := make(map[string]Property)
	for _, row := range lines(out) {
		if len(row) == 3 {
			found[row[0]] = Property{Value: row[2], Here: row[1] == "local" || row[1] == "received"}
		}
	}
	return found, nil
}
