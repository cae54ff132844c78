package zfs

import (
	"context"
	"strconv"
	"strings"
)

// listWithoutProgram finds what properties.lua finds, in the same form, with an entry
// for each row of a listing, because nothing is destroyed meanwhile. It is for a pool
// that is imported read-only, where the kernel runs no channel program. A value with a
// line break can look like a property of another file system; a user who can set such
// a value can also set that property.
func (c *commands) listWithoutProgram(ctx context.Context, root, prefix string, rows [][]string) (table, error) {
	out, err := c.run(ctx, "list", root, nil,
		"get", "-Hp", "-r", "-t", "filesystem", "-s", "local,received", "-o", "name,property,value", "all", root)
	if err != nil {
		return nil, err
	}
	snapshots, err := c.run(ctx, "list", root, nil, "list", "-Hp", "-r", "-t", "snapshot", "-o", "name", root)
	if err != nil {
		return nil, err
	}
	found := make(table)
	for _, row := range rows {
		found.below(row[0])
	}
	for _, row := range lines(out) {
		if len(row) == 3 && strings.HasPrefix(row[1], prefix) {
			found.below(row[0]).below("props")[row[1]] = printable(row[2])
		}
	}
	for _, row := range lines(snapshots) {
		if name, _, ok := strings.Cut(row[0], "@"); ok {
			of := found.below(name).below("snapshots")
			of[strconv.Itoa(len(of)+1)] = row[0]
		}
	}
	return found, nil
}

// below returns the inner table with that name, which it creates if necessary.
func (t table) below(name string) table {
	inner, ok := t[name].(table)
	if !ok {
		inner = make(table)
		t[name] = inner
	}
	return inner
}

// printable returns value if it is printable ASCII, and "?" otherwise.
func printable(value string) string {
	if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' }) {
		return "?"
	}
	return value
}
