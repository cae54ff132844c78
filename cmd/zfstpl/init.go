package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/zfstpl/zfstpl/plugin"
)

func initCommand() *cli.Command {
	return &cli.Command{
		Name:      "init",
		Usage:     "make the dataset that snapshots live under, or complete it",
		ArgsUsage: "DATASET",
		Description: "Makes DATASET, such as tank/zfstpl, with the properties that snapshots inherit,\n" +
			"mounts it and prints what to put into containerd's configuration.\n" +
			"Properties of the dataset above that would do harm to images and containers, such\n" +
			"as normalization, are set to what does none; docs/zfs.md lists them. What the pool\n" +
			"lacks a feature for is left out. -o wins over both.\n" +
			"When it fails it removes what it made. Doing it again changes nothing, and -o is\n" +
			"for when DATASET is made: 'zfs set' is for later. A dataset that zfstpl did not\n" +
			"make is refused. In a pool with an altroot, DIR is where the base is mounted,\n" +
			"with or without the altroot before it.",
		Flags: []cli.Flag{configFlag, rootFlag, addressFlag, versionFlag,
			&cli.StringSliceFlag{Name: "o", Usage: "a native ZFS property of the base, `NAME=VALUE`, such as compression=zstd"}},
		Action: anyOrder(initBase),
	}
}

func initBase(c *cli.Context) error {
	config, err := settings(c)
	if err != nil {
		return err
	}
	switch {
	case c.NArg() > 1:
		return fmt.Errorf("unexpected argument %q: init makes one dataset", c.Args().Get(1))
	case c.NArg() == 1:
		config.Dataset = c.Args().First()
	}
	base, err := config.Check()
	if err != nil {
		return err
	}
	props, err := properties(c.StringSlice("o"))
	if err != nil {
		return err
	}
	made, err := plugin.InitBase(c.Context, base, config.Root, props)
	if err != nil {
		return err
	}
	what := "was ready"
	if made.Changed {
		what = "is ready"
	}
	for _, h := range made.Harms {
		fmt.Fprintf(c.App.ErrWriter, "zfstpl: %s=%s on %s: %s; %s\n", h.Property, h.Value, h.Dataset, h.Effect, h.Fix)
	}
	fmt.Fprintf(c.App.Writer, "# %s %s.\n\n# Start the daemon: containerd-zfstpl-grpc --dataset %s\n", base, what, base)
	return printContainerdAt(c, config, made.Root)
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
