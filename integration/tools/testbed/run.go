package main

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/zfstpl/zfstpl/integration/tools/testbed/internal/machine"
	"github.com/zfstpl/zfstpl/integration/tools/testbed/internal/ui"
)

func runCommand(u *ui.UI) *cli.Command {
	return &cli.Command{
		Name:      "run",
		Usage:     "boot a machine, run a command in it as root, and power it off",
		ArgsUsage: "-- COMMAND [ARGUMENT…]",
		Flags: append(machineFlags(),
			&cli.DurationFlag{Name: "timeout", Value: 20 * time.Minute, Usage: "the longest `TIME` for all"},
			&cli.DurationFlag{Name: "kill-after", Usage: "cut the machine's power this `TIME` after the start of the command"},
			&cli.StringFlag{Name: "kill-on", Usage: "cut it as soon as a line of the command's output matches `REGEX`"},
			&cli.BoolFlag{Name: "stdin", Aliases: []string{"i"}, Usage: "pass on the standard input"},
			&cli.StringFlag{Name: "dir", Usage: "start the command in the guest's `DIR`"},
		),
		Action: func(c *cli.Context) (err error) {
			if !c.Args().Present() {
				return errors.New("no command: testbed run [flags] -- COMMAND")
			}
			pattern, err := compile(c.String("kill-on"))
			if err != nil {
				return err
			}
			b, err := configure(c, u)
			defer func() { err = errors.Join(err, b.close()) }()
			if err != nil {
				return err
			}
			config := b.config
			config.Order.Args, config.Order.Dir = c.Args().Slice(), c.String("dir")
			config.Order.Stdin, config.Input = c.Bool("stdin"), os.Stdin
			config.Stdout, config.Stderr = os.Stdout, os.Stderr
			config.Timeout, config.KillAfter, config.KillOn = c.Duration("timeout"), c.Duration("kill-after"), pattern
			return boot(c, u, config)
		},
	}
}

func compile(pattern string) (*regexp.Regexp, error) {
	if pattern == "" {
		return nil, nil
	}
	compiled, err := regexp.Compile(pattern)
	if err != nil {
		return nil, fmt.Errorf("--kill-on: %w", err)
	}
	return compiled, nil
}

// boot runs the machine and turns the command's exit status into ours.
func boot(c *cli.Context, u *ui.UI, config *machine.Config) error {
	result, err := machine.Run(c.Context, config)
	if c.Bool("verbose") && result.Boot > 0 {
		greeting := result.Greeting
		u.Say("Linux %s, ZFS %s, %s: %s from power-on to the command (kernel %s, the rest of the guest %s), %s in all",
			greeting.Kernel, greeting.ZFS, config.Accel, ui.Elapsed(result.Boot),
			ui.Elapsed(greeting.Agent), ui.Elapsed(greeting.Ready-greeting.Agent), ui.Elapsed(result.Total))
	}
	if err != nil {
		return err
	}
	if result.Code != 0 {
		return exitStatus(result.Code)
	}
	return nil
}
