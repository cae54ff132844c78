package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/zfstpl/zfstpl/plugin"
	"github.com/zfstpl/zfstpl/snapshotter"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

func initCommand() *cli.Command {
	return &cli.Command{
		Name:      "init",
		Usage:     "make the dataset that snapshots live under, or complete it",
		ArgsUsage: "DATASET",
		Description: "Makes DATASET, such as tank/zfstpl, with the properties that snapshots inherit,\n" +
			"mounts it and prints what to put into containerd's configuration.\n" +
			"Doing it again changes nothing, and -o is for when DATASET is made: 'zfs set' is\n" +
			"for later. A dataset that zfstpl did not make is refused.",
		Flags: []cli.Flag{configFlag, rootFlag, addressFlag, versionFlag,
			&cli.StringSliceFlag{Name: "o", Usage: "a native ZFS property of the base, `NAME=VALUE`, such as compression=zstd"}},
		Action: initBase,
	}
}

func initBase(c *cli.Context) error {
	config, err := settings(c)
	if err != nil {
		return err
	}
	switch {
	case c.NArg() > 1:
		return fmt.Errorf("unexpected argument %q: options come before the dataset", c.Args().Get(1))
	case c.NArg() == 1:
		config.Dataset = c.Args().First()
	}
	root := config.Root
	if root == "" {
		root = plugin.DefaultRoot
	}
	base, err := config.Check()
	if err != nil {
		return err
	}
	props, err := properties(c.StringSlice("o"))
	if err != nil {
		return err
	}
	if err := makeBase(c, base, filepath.Clean(root), props, config.Root != ""); err != nil {
		return err
	}
	fmt.Fprintf(c.App.Writer, "\n# Start the daemon: containerd-zfstpl-grpc --dataset %s\n", base)
	return printContainerd(c, config)
}

// makeBase makes the base, or completes it. One that is there already must be mounted
// at root, where root was chosen.
func makeBase(c *cli.Context, base layout.Base, root string, props map[string]string, chosen bool) error {
	pool, err := plugin.OpenPool(c.Context, base, zfs.Auto)
	if err != nil {
		return err
	}
	changed, err := snapshotter.InitBase(c.Context, pool, base, root, props)
	if err != nil {
		return err
	}
	if at, err := pool.Properties(c.Context, base.String(), "mountpoint"); err != nil {
		return err
	} else if is := at["mountpoint"].Value; chosen && is != root {
		return fmt.Errorf("dataset %s is there already and has its mountpoint at %s, not %s: 'zfs set mountpoint=%s %s' moves it", base, is, root, root, base)
	}
	what := "was ready"
	if changed {
		what = "is ready"
	}
	_, err = fmt.Fprintf(c.App.Writer, "# %s %s.\n", base, what)
	return err
}

// properties reads "name=value" words. The properties the layout stands on are
// not for choosing.
func properties(words []string) (map[string]string, error) {
	props := make(map[string]string)
	for _, word := range words {
		name, value, ok := strings.Cut(word, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("-o %q: a property is given as NAME=VALUE", word)
		}
		switch {
		case name == "mountpoint":
			return nil, errors.New("-o mountpoint: use --root")
		case name == "canmount", strings.Contains(name, ":"):
			return nil, fmt.Errorf("-o %s: zfstpl sets this itself", name)
		}
		props[name] = value
	}
	return props, nil
}
