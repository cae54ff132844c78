package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/zfstpl/zfstpl/snapshotter/diff"
	"github.com/zfstpl/zfstpl/snapshotter/inspect"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

func diffCommand() *cli.Command {
	return &cli.Command{
		Name:      "diff",
		Usage:     "show what a snapshot changed",
		ArgsUsage: "SNAPSHOT",
		Description: "SNAPSHOT is containerd's key or name of a snapshot, such as the ID of a container,\n" +
			"or its dataset, or the name of that in 'zfstpl ls'. A container may be running.\n" +
			"Formats are names (A added, M modified, D deleted), json (one line for each path;\n" +
			"raw is a path that is not UTF-8, in base64), and tar, tar+gzip or tar+zstd, which\n" +
			"are a layer of an image. The command takes a temporary snapshot of a container\n" +
			"and changes nothing else; it needs no daemon.",
		Flags: []cli.Flag{configFlag, datasetFlag,
			&cli.StringFlag{Name: "parent", Usage: "compare with `SNAPSHOT` (default: its parent)"},
			&cli.StringFlag{Name: "format", Value: "names", Usage: "`FORMAT` names, json, tar, tar+gzip or tar+zstd"}},
		Action: anyOrder(showDiff),
	}
}

func showDiff(c *cli.Context) error {
	if c.NArg() != 1 {
		return errors.New("give one snapshot as argument: 'zfstpl ls' lists them")
	}
	write, err := diffFormat(c.String("format"), c.App.Writer)
	if err != nil {
		return err
	}
	base, pool, entries, incomplete, err := inspectBase(c)
	if err != nil {
		return err
	}
	defer pool.Close()
	warnIncomplete(c, incomplete)
	sides, err := sidesOf(base, entries, c.Args().First(), c.String("parent"))
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(c.App.Writer, 64<<10)
	if err := write(c, diff.New(base, pool, diff.Contents{}, nil), sides, out); err != nil {
		return err
	}
	return out.Flush()
}

type diffWriter func(c *cli.Context, s *diff.Service, sides diff.Sides, w io.Writer) error

// diffFormat returns the writer of a format. It returns an error for a binary format if
// the output is a terminal.
func diffFormat(format string, to io.Writer) (diffWriter, error) {
	switch format {
	case "names":
		return writeNames, nil
	case "json":
		return writeJSON, nil
	}
	compress, err := diff.Compression(format)
	if err != nil {
		return nil, err
	}
	if f, ok := to.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return nil, fmt.Errorf("format %s is binary and the output is a terminal: redirect it to a file or a program", format)
	}
	return func(c *cli.Context, s *diff.Service, sides diff.Sides, w io.Writer) error {
		z, err := compress(w)
		if err != nil {
			return err
		}
		return errors.Join(s.Layer(c.Context, sides, z, nil), z.Close())
	}, nil
}

func writeNames(c *cli.Context, s *diff.Service, sides diff.Sides, w io.Writer) error {
	return s.Changes(c.Context, sides, func(change diff.Change) error {
		_, err := fmt.Fprintf(w, "%s %s\n", letters[change.Kind], readable(change.Path))
		return err
	})
}

var letters = map[diff.Kind]string{diff.Added: "A", diff.Modified: "M", diff.Replaced: "M", diff.Deleted: "D"}

// readable quotes a path with characters that a terminal must not get.
func readable(path string) string {
	if utf8.ValidString(path) && !strings.ContainsFunc(path, func(r rune) bool { return !unicode.IsPrint(r) }) && path[0] != '"' {
		return path
	}
	return strconv.Quote(path)
}

// jsonChange is a line of the json format. JSON cannot represent a path that is not
// UTF-8, so Raw has such a path in base64.
type jsonChange struct {
	diff.Change
	Raw []byte `json:"raw,omitempty"`
}

func writeJSON(c *cli.Context, s *diff.Service, sides diff.Sides, w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return s.Changes(c.Context, sides, func(change diff.Change) error {
		line := jsonChange{Change: change}
		if !utf8.ValidString(change.Path) {
			line.Raw = []byte(change.Path)
		}
		return enc.Encode(line)
	})
}

// sidesOf returns the two sides of the comparison of snapshots that are given by name.
func sidesOf(base layout.Base, entries []inspect.Entry, name, parent string) (sides diff.Sides, err error) {
	of, err := find(entries, name)
	if err != nil {
		return sides, err
	}
	sides.Upper = source(base, of)
	switch {
	case parent != "":
		below, err := find(entries, parent)
		if err != nil {
			return sides, err
		}
		sides.Lower = source(base, below)
	case isView(of, name):
		sides.Lower = sides.Upper // a view has no changes
	case of.Parent != "":
		sides.Lower = of.Parent + "@" + layout.Extracted
	}
	return sides, nil
}

// source returns what is read of a dataset: the snapshot of a template, the file system of
// a runtime.
func source(base layout.Base, e inspect.Entry) string {
	if _, ok := base.ParseRuntime(e.Dataset); ok {
		return e.Dataset
	}
	return e.Dataset + "@" + layout.Extracted
}

// isView reports whether name is that of a view of a dataset.
func isView(e inspect.Entry, name string) bool {
	return slices.ContainsFunc(e.Records, func(r snapshots.Info) bool {
		return r.Kind == snapshots.KindView && (r.Name == name || layout.ClientName(r.Name) == name)
	})
}

// find returns the dataset of a snapshot. The name is that of the snapshotter, of
// containerd's client or of ZFS or, if there is no such one, that of 'zfstpl ls'.
func find(entries []inspect.Entry, name string) (inspect.Entry, error) {
	var found, shown []inspect.Entry
	var names []string
	for _, e := range entries {
		ours := e.State != inspect.Partial && e.State != inspect.Foreign
		if e.Dataset == name && ours {
			return e, nil
		}
		if path.Base(e.Dataset) == name && ours {
			shown = append(shown, e)
		}
		for _, r := range e.Records {
			if r.Name == name {
				return e, nil
			}
			if layout.ClientName(r.Name) == name {
				names = append(names, r.Name)
				if len(found) == 0 || found[len(found)-1].Dataset != e.Dataset {
					found = append(found, e)
				}
			}
		}
	}
	if len(found) == 0 {
		found = shown // at most one: runtimes and templates have different names
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return inspect.Entry{}, fmt.Errorf("snapshot %q: %w: 'zfstpl ls' lists the snapshots", name, zfs.ErrNotFound)
	}
	return inspect.Entry{}, fmt.Errorf("%q is the name of several snapshots: use one of %s", name, strings.Join(names, ", "))
}
