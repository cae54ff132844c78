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
		Usage:     "create the base, the dataset of all snapshots, or complete it",
		ArgsUsage: "DATASET",
		Description: "Creates DATASET, such as tank/zfstpl, with the properties that snapshots inherit,\n" +
			"mounts it and prints what to put into containerd's configuration.\n" +
			"It sets properties whose inherited values could harm images and containers, such\n" +
			"as normalization, to safe values; docs/zfs.md lists them. It omits a property\n" +
			"whose feature the pool lacks. -o overrides both, and is used only when DATASET\n" +
			"is created: use 'zfs set' later. If init fails, it destroys what it created.\n" +
			"On a complete base it changes nothing. It refuses a dataset that zfstpl did not\n" +
			"create. In a pool with an altroot, DIR may begin with the altroot or not.",
		Flags: []cli.Flag{configFlag, rootFlag, addressFlag, versionFlag,
			&cli.StringSliceFlag{Name: "o", Usage: "native ZFS property of the base, `NAME=VALUE`, such as compression=zstd; may be repeated"}},
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
		return fmt.Errorf("unexpected argument %q: init creates one dataset", c.Args().Get(1))
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
	return printContainerd(c, config, made.Root)
}

// properties parses "name=value" words. It refuses properties that the layout needs.
func properties(words []string) (map[string]string, error) {
	props := make(map[string]string)
	for _, word := range words {
		name, value, ok := strings.Cut(word, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("-o %q: write a property as NAME=VALUE", word)
		}
		switch {
		case name == "mountpoint":
			return nil, errors.New("-o mountpoint: use --root")
		case name == "canmount", strings.Contains(name, ":"):
			return nil, fmt.Errorf("-o %s: zfstpl sets this property itself", name)
		}
		props[name] = value
	}
	return props, nil
}
