package zfs

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

//go:embed lua/properties.lua
var propertiesScript string

// listed are the native properties of a listing. None of them makes ZFS open a
// snapshot, which would walk all its clones. In the emulated testbed 'zfs get all'
// takes 0.3 s for each file system; these properties take little.
var listed = []string{"name", "origin", "guid", "createtxg", "creation", "used", "referenced", "mountpoint"}

func (c *commands) list(ctx context.Context, root, prefix string) ([]Dataset, error) {
	out, err := c.run(ctx, "list", root, nil,
		"list", "-Hp", "-r", "-t", "filesystem", "-o", strings.Join(listed, ","), root)
	if err != nil {
		return nil, err
	}
	more, err := c.program(ctx, "list", root, propertiesScript, readOnly, []string{root, prefix})
	if errors.Is(err, ErrReadOnly) {
		more, err = c.listWithoutProgram(ctx, root, prefix, lines(out))
	}
	if err != nil {
		return nil, err
	}
	var list []Dataset
	for _, row := range lines(out) {
		d, err := readDataset(row)
		if err != nil {
			return nil, &Error{Op: "list", Dataset: root, Detail: err.Error()}
		}
		// The program runs after the command: what it did not find was destroyed.
		found, ok := more[d.Name].(table)
		if !ok {
			continue
		}
		d.takeProgram(found)
		list = append(list, *d)
	}
	if _, ok := more[root].(table); !ok {
		return nil, &Error{Op: "list", Dataset: root, Kind: ErrNotFound}
	}
	return list, nil
}

// takeProgram copies what properties.lua found on a file system.
func (d *Dataset) takeProgram(found table) {
	d.Props = make(map[string]string)
	props := found.table("props")
	for name := range props {
		d.Props[name] = props.text(name)
	}
	snapshots := found.table("snapshots") // full names by number, as text
	for number := range snapshots {
		d.Snapshots = append(d.Snapshots, strings.TrimPrefix(snapshots.text(number), d.Name+"@"))
	}
}

// readDataset parses a row of the listed properties.
func readDataset(row []string) (*Dataset, error) {
	if len(row) != len(listed) {
		return nil, fmt.Errorf("a row has %d columns, not %d: %q", len(row), len(listed), row)
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
