//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/zfstpl/zfstpl/integration/tools/bench/internal/report"
	"github.com/zfstpl/zfstpl/integration/tools/bench/internal/rig"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := app().RunContext(ctx, os.Args); err != nil {
		if ctx.Err() != nil {
			err = errors.New("interrupted")
		}
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func app() *cli.App {
	return &cli.App{
		Name: "bench", Usage: "measure zfstpl beside other snapshotters",
		HideHelpCommand: true,
		Commands:        []*cli.Command{measureCommand(), busyCommand(), waitsCommand(), scaleCommand(), fewCommand(), layersCommand(), cleanupsCommand(), mountsCommand(), importsCommand(), reportCommand(), proxyCommand(), writeCommand()},
	}
}

// planCommand returns a command that measures a plan. adjust applies the command's flags to
// the plan.
func planCommand(name, usage string, full, quick plan, flags []cli.Flag, adjust func(*cli.Context, *plan)) *cli.Command {
	return &cli.Command{
		Name: name, Usage: usage, Flags: slices.Concat([]cli.Flag{quickFlag}, flags, rigFlags),
		Action: func(c *cli.Context) error {
			options, err := rigOptions(c)
			if err != nil {
				return err
			}
			p := full
			if c.Bool("quick") {
				p = quick
			}
			adjust(c, &p)
			return measure(c.Context, p, options)
		},
	}
}

var quickFlag = &cli.BoolFlag{Name: "quick", Usage: "few rounds, and no more than 100 clones: to try the program"}

func onlyFlag(names []string) cli.Flag {
	return &cli.StringSliceFlag{Name: "only", Usage: "only this contender, by `NAME`; repeatable: " + strings.Join(names, ", ")}
}

func measureCommand() *cli.Command {
	return planCommand("measure", "measure, and write samples to the standard output", full, quick,
		[]cli.Flag{onlyFlag(names)},
		func(c *cli.Context, p *plan) { p.only = c.StringSlice("only") })
}

func busyCommand() *cli.Command {
	return planCommand("busy", "measure the contenders on ZFS on an idle pool and on a busy one", loads, quickLoads,
		[]cli.Flag{onlyFlag(onZFS), &cli.IntSliceFlag{Name: "clones", Usage: "only with this `NUMBER` of clones; repeatable"}},
		func(c *cli.Context, p *plan) {
			if only := c.StringSlice("only"); len(only) > 0 {
				p.only = only
			}
			if clones := c.IntSlice("clones"); len(clones) > 0 {
				p.levels = slices.Sorted(slices.Values(clones))
			}
		})
}

func waitsCommand() *cli.Command {
	return planCommand("waits", "count the txgs and the ZIL commits that each operation waits for", counted, quickCounted, nil,
		func(*cli.Context, *plan) {})
}

func scaleCommand() *cli.Command {
	return planCommand("scale", "measure zfstpl with few clones and with many, and starts of its daemon", scale, quickScale,
		[]cli.Flag{&cli.StringFlag{Name: "before", Usage: "also measure the older zfstpl whose programs are in `DIR`"}},
		func(c *cli.Context, p *plan) {
			if p.before = c.String("before"); p.before != "" {
				p.only = append(slices.Clone(p.only), report.Before)
			}
		})
}

func mountsCommand() *cli.Command {
	return planCommand("mounts", "measure held mounts beside mounts of datasets, and write samples to the standard output", held, quickHeld,
		[]cli.Flag{imageFlag}, importImage)
}

func importsCommand() *cli.Command {
	return planCommand("imports", "measure the import of an image, and write samples to the standard output", imported, quickImported,
		[]cli.Flag{imageFlag}, importImage)
}

var imageFlag = &cli.StringFlag{Name: "image", Usage: "measure the import of the image in the archive `FILE`", Required: true}

func importImage(c *cli.Context, p *plan) { p.archive = c.String("image") }

func fewCommand() *cli.Command {
	return &cli.Command{
		Name: "few", Usage: "measure layers of few changes in images of every size, and write samples to the standard output",
		Flags: append([]cli.Flag{
			&cli.BoolFlag{Name: "quick", Usage: "one round and small images: to try the program"},
			&cli.StringSliceFlag{Name: "largest-of", Usage: "the largest image only for this contender, by `NAME`; repeatable: " + strings.Join(largestOrder, ", ")},
		}, rigFlags...),
		Action: func(c *cli.Context) error {
			options, err := rigOptions(c)
			if err != nil {
				return err
			}
			plan := fullFew
			if c.Bool("quick") {
				plan = quickFew
			}
			plan.largestOf = c.StringSlice("largest-of")
			for _, name := range plan.largestOf {
				if !slices.Contains(largestOrder, name) {
					return fmt.Errorf("--largest-of %s: want one of %s", name, strings.Join(largestOrder, ", "))
				}
			}
			return measureLayers(c.Context, plan, options)
		},
	}
}

func layersCommand() *cli.Command {
	return &cli.Command{
		Name: "layers", Usage: "measure what other layers cost, and write samples to the standard output",
		Flags: append([]cli.Flag{
			&cli.BoolFlag{Name: "quick", Usage: "few rounds and small images: to try the program"},
		}, rigFlags...),
		Action: func(c *cli.Context) error {
			options, err := rigOptions(c)
			if err != nil {
				return err
			}
			plan := fullLayers
			if c.Bool("quick") {
				plan = quickLayers
			}
			return measureLayers(c.Context, plan, options)
		},
	}
}

func cleanupsCommand() *cli.Command {
	return &cli.Command{
		Name: "cleanups", Usage: "measure Prepare while a cleanup is under way, and write samples to the standard output",
		Flags: append([]cli.Flag{&cli.BoolFlag{Name: "quick", Usage: "few datasets: to try the program"}}, rigFlags...),
		Action: func(c *cli.Context) error {
			options, err := rigOptions(c)
			if err != nil {
				return err
			}
			plan := fullCleanups
			if c.Bool("quick") {
				plan = quickCleanups
			}
			return measureCleanups(c.Context, plan, options)
		},
	}
}

var rigFlags = []cli.Flag{
	&cli.StringFlag{Name: "bin", Usage: "`DIR` of zfstpl's programs and the image's (default: PATH)"},
	&cli.StringFlag{Name: "containerd-bin", Usage: "`DIR` of containerd, ctr and the shim (default: PATH)"},
	&cli.StringFlag{Name: "pool-device", Usage: "make the pool on `DEVICE`, whose content is lost (default: a sparse file)"},
	&cli.StringFlag{Name: "ext4-device", Usage: "the same for ext4"},
	&cli.StringFlag{Name: "btrfs-device", Usage: "the same for btrfs"},
	&cli.StringFlag{Name: "dir", Usage: "make the temporary directory in `DIR`", Value: os.TempDir()},
}

func rigOptions(c *cli.Context) (rig.Options, error) {
	if os.Geteuid() != 0 {
		return rig.Options{}, errors.New("measuring needs root: it makes a pool, mounts and containers")
	}
	return rig.Options{
		Bin: c.String("bin"), ContainerdBin: c.String("containerd-bin"),
		Pool: c.String("pool-device"), Ext4: c.String("ext4-device"), Btrfs: c.String("btrfs-device"),
		Dir: c.String("dir"),
	}, nil
}
