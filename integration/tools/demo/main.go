//go:build linux

// The demo command is a guided tour: it makes a pool, starts the daemon and a
// containerd of its own, runs and commits containers on them, and takes it all
// down again. It needs root and a kernel with ZFS; the testbed has both.
//
//	demo --image image.tar --bin bin             the tour
//	demo --image image.tar --bin bin --keep      the same, with a look around before the end
//	demo --image image.tar --rehearse            containerd's part on overlayfs, without ZFS
//
// Every command it runs is printed as a shell would take it. Whatever it makes
// carries its process id and lies in one temporary directory; when it ends, on
// whatever path, none of that is left.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/urfave/cli/v2"
)

func main() {
	if err := command().Run(os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func command() *cli.App {
	return &cli.App{
		Name:            "demo",
		Usage:           "a guided tour of zfstpl on a real pool",
		HideHelpCommand: true,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "image", Usage: "the OCI image `TAR` that integration/tools/image makes", Required: true, TakesFile: true},
			&cli.StringFlag{Name: "manifest", Usage: "compare what a container sees with this `FILE` that integration/tools/image wrote", TakesFile: true},
			&cli.StringFlag{Name: "bin", Usage: "the directory of containerd-zfstpl-grpc and zfstpl (default: PATH)", TakesFile: true},
			&cli.StringFlag{Name: "containerd-bin", Usage: "the directory of containerd, ctr and the shim (default: PATH)", TakesFile: true},
			&cli.StringFlag{Name: "pool-device", Usage: "make the pool on `DEVICE`, whose content is lost (default: a sparse file)", TakesFile: true},
			&cli.StringFlag{Name: "dir", Usage: "the directory to make the temporary directory in", TakesFile: true},
			&cli.BoolFlag{Name: "keep", Usage: "leave everything running before the end, until Ctrl-C"},
			&cli.BoolFlag{Name: "rehearse", Usage: "run containerd's part on overlayfs, without ZFS"},
			&cli.DurationFlag{Name: "timeout", Usage: "give up after this time, unless --keep is given", Value: 20 * time.Minute},
		},
		Action: action,
	}
}

func action(c *cli.Context) error {
	if c.Args().Present() {
		return fmt.Errorf("unexpected argument %q", c.Args().First())
	}
	if os.Geteuid() != 0 {
		return errors.New("the tour needs root: it makes a pool, mounts and containers")
	}
	sigs := watchSignals()
	defer sigs.stop()
	ctx := sigs.ctx
	if !c.Bool("keep") {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.Duration("timeout"))
		defer cancel()
	}
	t, err := newTour(options{
		image:         c.String("image"),
		manifest:      c.String("manifest"),
		bin:           c.String("bin"),
		containerdBin: c.String("containerd-bin"),
		device:        c.String("pool-device"),
		dir:           c.String("dir"),
		keep:          c.Bool("keep"),
		rehearse:      c.Bool("rehearse"),
	}, sigs)
	if err != nil {
		return err
	}
	return t.take(ctx)
}
