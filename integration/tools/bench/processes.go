//go:build linux

package main

import (
	"fmt"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/urfave/cli/v2"

	"github.com/zfstpl/zfstpl/integration/tools/bench/internal/minimal"
	"github.com/zfstpl/zfstpl/integration/tools/bench/internal/writer"
)

// proxyCommand and writeCommand are processes that the bench itself starts.
func proxyCommand() *cli.Command {
	return &cli.Command{
		Name: "proxy", Usage: "serve the least that a proxy snapshotter can do", Hidden: true,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "address", Usage: "serve at the unix socket `PATH`", Required: true},
			&cli.StringFlag{Name: "dir", Usage: "mounts bind `DIR`", Required: true},
			&cli.BoolFlag{Name: "log", Usage: "append a record to a file in DIR for each change"},
		},
		Action: func(c *cli.Context) error {
			empty := minimal.Empty{Dir: c.String("dir")}
			var sn snapshots.Snapshotter = empty
			if c.Bool("log") {
				log, err := minimal.OpenLog(filepath.Join(c.String("dir"), "log"))
				if err != nil {
					return err
				}
				sn = minimal.Logging{Empty: empty, Log: log}
			}
			return minimal.Serve(c.Context, c.String("address"), sn, ready)
		},
	}
}

func writeCommand() *cli.Command {
	return &cli.Command{
		Name: "write", Usage: "write files until it is stopped", Hidden: true,
		Flags: []cli.Flag{&cli.StringFlag{Name: "dir", Usage: "write into `DIR`", Required: true}},
		Action: func(c *cli.Context) error {
			written, err := writer.Run(c.Context, c.String("dir"), ready)
			if err == nil {
				fmt.Println(written)
			}
			return err
		},
	}
}

// ready reports to the bench that the process does its work.
func ready() error {
	_, err := daemon.SdNotify(false, daemon.SdNotifyReady)
	return err
}
