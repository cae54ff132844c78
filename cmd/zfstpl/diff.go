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

	"github.com/zfstpl/zfstpl/snapshotter"
	"github.com/zfstpl/zfstpl/snapshotter/diff"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

func diffCommand() *cli.Command {
	return &cli.Command{
		Name:      "diff",
		Usage:     "show what a snapshot changed",
		ArgsUsage: "SNAPSHOT",
		Description: "SNAPSHOT is a key or name as containerd has it, such as a container's, or the\n" +
			"dataset of it, or what 'zfstpl ls' shows of that. A container may be running: what it changed until now is shown.\n" +
			"Formats are names (A added, M modified, D deleted), json (a line each; raw is a\n" +
			"path that is no UTF-8, in base64), and tar, tar+gzip or tar+zstd, which are a\n" +
			"layer of an image. Of a container it takes a snapshot for as long as it looks,\n" +
			"and changes nothing else. The daemon may run or not.",
		Flags: []cli.Flag{configFlag, datasetFlag,
			&cli.StringFlag{Name: "parent", Usage: "compare with `SNAPSHOT` (default: what it was made from)"},
			&cli.StringFlag{Name: "format", Value: "names", Usage: "`FORMAT` names, json, tar, tar+gzip or tar+zstd"}},
		Action: anyOrder(showDiff),
	}
}

func showDiff(c *cli.Context) error {
	if c.NArg() != 1 {
		return errors.New("name one snapshot; 'zfstpl ls' shows them")
	}
	write, err := diffFormat(c.String("format"), c.App.Writer)
	if err != nil {
		return err
	}
	base, pool, entries, err := inspect(c)
	if err != nil {
		return err
	}
	defer pool.Close()
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

// diffFormat answers what writes a format, unless it is nothing for a terminal.
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
		return nil, fmt.Errorf("format %s is nothing for a terminal: send it into a file or a program", format)
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
		_, err := fmt.Fprintf(w, "%s %s\n", letter(change.Kind), readable(change.Path))
		return err
	})
}

func letter(kind diff.Kind) string {
	switch kind {
	case diff.Added:
		return "A"
	case diff.Deleted:
		return "D"
	default:
		return "M"
	}
}

// readable quotes a path that would break a line or a terminal.
func readable(path string) string {
	if utf8.ValidString(path) && !strings.ContainsFunc(path, func(r rune) bool { return !unicode.IsPrint(r) }) && path[0] != '"' {
		return path
	}
	return strconv.Quote(path)
}

// jsonChange is a line of the json format. JSON knows no bytes that are no UTF-8:
// a path with such is there once more, in base64.
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

// sidesOf answers what is to be compared.
func sidesOf(base layout.Base, entries []snapshotter.Entry, name, parent string) (sides diff.Sides, err error) {
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
		sides.Lower = sides.Upper // whoever looks at a template changes nothing
	case of.Parent != "":
		sides.Lower = of.Parent + "@" + layout.Extracted
	}
	return sides, nil
}

// source is what is read of a dataset: a template's snapshot, a runtime as it is.
func source(base layout.Base, e snapshotter.Entry) string {
	if _, ok := base.ParseRuntime(e.Dataset); ok {
		return e.Dataset
	}
	return e.Dataset + "@" + layout.Extracted
}

// isView tells whether a name is that of a view of a dataset.
func isView(e snapshotter.Entry, name string) bool {
	return slices.ContainsFunc(e.Records, func(r snapshots.Info) bool {
		return r.Kind == snapshots.KindView && (r.Name == name || layout.ClientName(r.Name) == name)
	})
}

// find answers the dataset of a snapshot that is named as the backend, containerd
// or ZFS names it or, if none of them does, as 'zfstpl ls' shows it.
func find(entries []snapshotter.Entry, name string) (snapshotter.Entry, error) {
	var found, shown []snapshotter.Entry
	var names []string
	for _, e := range entries {
		ours := e.State != snapshotter.StatePartial && e.State != snapshotter.StateForeign
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
		found = shown // one at most: runtimes and templates are not called alike
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return snapshotter.Entry{}, fmt.Errorf("there is no snapshot %q: %w", name, zfs.ErrNotFound)
	}
	return snapshotter.Entry{}, fmt.Errorf("%q is the name of several snapshots: give one of %s", name, strings.Join(names, ", "))
}
