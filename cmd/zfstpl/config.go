package main

import (
	"fmt"
	"os/exec"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/zfstpl/zfstpl/plugin"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
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

var versionFlag = &cli.IntFlag{Name: "config-version",
	Usage: "`VERSION` of containerd's configuration: 3 for containerd 2.x, 2 for 1.7 (default: that of the containerd in PATH, else 3)"}

// configVersion is the one that was asked for, or that the containerd here has.
func configVersion(c *cli.Context) int {
	if c.IsSet("config-version") {
		return c.Int("config-version")
	}
	out, err := exec.CommandContext(c.Context, "containerd", "--version").Output()
	if err == nil && plugin.ContainerdIsOld(string(out)) {
		return plugin.ContainerdConfig2
	}
	return plugin.ContainerdConfig3
}

// rootOf is where the base is mounted or, where it cannot be asked, would be.
func rootOf(c *cli.Context, config plugin.Config) string {
	base, err := config.Check()
	if err != nil {
		return plugin.DefaultRoot
	}
	pool, err := plugin.OpenPool(c.Context, base, zfs.Auto)
	if err != nil {
		return plugin.DefaultRoot
	}
	defer pool.Close()
	props, err := pool.Properties(c.Context, base.String(), "mountpoint")
	if at := props["mountpoint"].Value; err == nil && filepath.IsAbs(at) {
		return at
	}
	return plugin.DefaultRoot
}

func printContainerd(c *cli.Context, config plugin.Config) error {
	if config.Root == "" {
		config.Root = rootOf(c, config)
	}
	text, err := plugin.ContainerdConfig(configVersion(c), config.Address, config.Root, config.ContainerdAddress != "")
	if err != nil {
		return err
	}
	_, err = fmt.Fprint(c.App.Writer, text)
	return err
}
