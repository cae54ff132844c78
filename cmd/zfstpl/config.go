package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/zfstpl/zfstpl/plugin"
)

func configCommand() *cli.Command {
	return &cli.Command{
		Name:  "config",
		Usage: "print configuration for others",
		Subcommands: []*cli.Command{{
			Name:  "containerd",
			Usage: "print what containerd's configuration needs to use the daemon",
			Flags: []cli.Flag{configFlag, datasetFlag, rootFlag, addressFlag, versionFlag},
			Action: func(c *cli.Context) error {
				config, err := settings(c)
				if err != nil {
					return err
				}
				return printContainerd(c, config)
			},
		}},
	}
}

var versionFlag = &cli.IntFlag{Name: "config-version", Value: plugin.ContainerdConfig3,
	Usage: "`VERSION` of containerd's configuration: 3 for containerd 2.x, 2 for 1.7"}

func printContainerd(c *cli.Context, config plugin.Config) error {
	if config.Root == "" {
		config.Root = plugin.DefaultRoot
	}
	text, err := plugin.ContainerdConfig(c.Int("config-version"), config.Address, config.Root)
	if err != nil {
		return err
	}
	_, err = fmt.Fprint(c.App.Writer, text)
	return err
}
