// Command containerd-zfstpl-grpc is the daemon that containerd uses as a proxy
// snapshotter.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/containerd/log"
	"github.com/urfave/cli/v2"

	"github.com/zfstpl/zfstpl/plugin"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	// Whoever reads the log may end; that is no reason to end in the middle of a call.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	if err := app().RunContext(ctx, os.Args); err != nil {
		fmt.Fprintf(os.Stderr, "containerd-zfstpl-grpc: %v\n", err)
		os.Exit(1)
	}
}

func app() *cli.App {
	app := cli.NewApp()
	app.Name = "containerd-zfstpl-grpc"
	app.Usage = "serve zfstpl's snapshots to containerd"
	app.Version = plugin.Version()
	app.HideHelpCommand = true
	app.Flags = flags()
	app.Action = run
	return app
}

func run(c *cli.Context) error {
	if c.Args().Present() {
		return fmt.Errorf("unexpected argument %q: options begin with --", c.Args().First())
	}
	config, err := configuration(c)
	if err != nil {
		return err
	}
	if _, err := config.Check(); err != nil {
		return err
	}
	if err := config.SetLogLevel(); err != nil {
		return err
	}
	instance, err := plugin.Open(c.Context, config)
	if err != nil {
		return ignoreCancelled(c.Context, err)
	}
	limitMemory()
	log.G(c.Context).WithField("dataset", config.Dataset).WithField("root", instance.Root).
		WithField("version", plugin.Version()).Info("base is open")
	err = serveInstance(c.Context, config, instance)
	if closeErr := instance.Close(); err == nil {
		err = closeErr
	}
	return err
}

// unlessEnded answers an error of opening a base, unless that was ended from outside.
func ignoreCancelled(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	log.G(ctx).WithError(err).Info("told to end before the base was open")
	return nil
}

// serveInstance serves an instance's snapshots, and its differ where there is a
// containerd to keep layers in.
func serveInstance(ctx context.Context, config plugin.Config, instance *plugin.Instance) error {
	if config.ContainerdAddress == "" {
		return serve(ctx, config.Address, instance, nil, nil)
	}
	contents, conn, err := plugin.DialContents(config.ContainerdAddress)
	if err != nil {
		return err
	}
	defer conn.Close()
	return serve(ctx, config.Address, instance, instance.Differ(contents), newGuard(config.Dataset, config.ContainerdAddress))
}

// saveMemory gives back what the listing at start took, and has the collector
// run more often than usual: the daemon lives for months, mostly idle, beside
// containers that were given what it does not need. GOGC in the environment
// still says otherwise.
func limitMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
	debug.FreeOSMemory()
}
