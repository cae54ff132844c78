package main

import (
	"cmp"
	"context"
	"fmt"
	"os/exec"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/zfstpl/zfstpl/plugin"
)

func configCommand() *cli.Command {
	return &cli.Command{
		Name:  "config",
		Usage: "generate configuration of other programs",
		Subcommands: []*cli.Command{{
			Name:   "containerd",
			Usage:  "print the configuration with which containerd uses the daemon",
			Flags:  []cli.Flag{configFlag, datasetFlag, rootFlag, addressFlag, versionFlag},
			Before: noArguments,
			Action: func(c *cli.Context) error {
				config, err := settings(c)
				if err != nil {
					return err
				}
				root, err := rootOf(c, config)
				if err != nil {
					return err
				}
				return printContainerd(c, config, root)
			},
		}},
	}
}

var versionFlag = &cli.IntFlag{Name: "config-version",
	Usage: "`VERSION` of containerd's configuration: 3 for containerd 2.x, 2 for 1.7 (default: that of the containerd in PATH, else 3)"}

// configVersion returns the version of --config-version, or that of the containerd in
// PATH.
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

// rootOf returns where the base is mounted. If no base is configured, or ZFS cannot be
// asked, it returns the configured or the default root; in the latter case it prints a
// warning.
func rootOf(c *cli.Context, config plugin.Config) (string, error) {
	if config.Dataset == "" {
		return cmp.Or(config.Root, plugin.DefaultRoot), nil
	}
	base, err := config.Check()
	if err != nil {
		return "", err
	}
	at, err := plugin.RootOf(c.Context, base, config.Root)
	if err == nil {
		return at, nil
	}
	if config.Root == "" {
		fmt.Fprintf(c.App.ErrWriter, "zfstpl: cannot find out where %s is mounted; printing root = %q, which --root changes: %v\n", base, plugin.DefaultRoot, err)
	}
	return cmp.Or(config.Root, plugin.DefaultRoot), nil
}

func printContainerd(c *cli.Context, config plugin.Config, root string) error {
	text, err := plugin.ContainerdConfig(configVersion(c), config.Address, root, config.ContainerdAddress != "")
	if err != nil {
		return err
	}
	if _, err = fmt.Fprint(c.App.Writer, text); err != nil {
		return err
	}
	warnUnreachable(c, config.ContainerdAddress)
	return nil
}

// askTimeout limits how long containerd may take to reply.
const askTimeout = 2 * time.Second

// warnUnreachable prints a warning if no containerd serves the address. The daemon then
// refuses removals, and neither makes nor unpacks layers.
func warnUnreachable(c *cli.Context, address string) {
	if address == "" {
		return
	}
	ctx, cancel := context.WithTimeout(c.Context, askTimeout)
	defer cancel()
	if _, err := plugin.AskContainerd(ctx, address); err != nil {
		fmt.Fprintf(c.App.ErrWriter, "zfstpl: cannot reach containerd; set containerd_address in %s to the socket of the containerd that uses the daemon: %v\n",
			c.String("config"), err)
	}
}
