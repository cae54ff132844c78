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
	// The reader of the log may end, which must not end the daemon during a call.
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
		return fmt.Errorf("unexpected argument %q: the daemon takes options only, which begin with --", c.Args().First())
	}
	config, err := configuration(c)
	if err != nil {
		return err
	}
	if _, err := config.Check(); err != nil {
		return err
	}
	if err := log.SetLevel(config.LogLevel); err != nil {
		return err
	}
	instance, err := plugin.Open(c.Context, config)
	if err != nil && c.Err() != nil {
		log.G(c.Context).WithError(err).Info("stopped before the base was open")
		return nil //nolint:nilerr // it was stopped, and did not fail
	}
	if err != nil {
		return err
	}
	limitMemory()
	log.G(c.Context).WithField("dataset", config.Dataset).WithField("root", instance.Root).
		WithField("version", plugin.Version()).Info("opened base")
	err = serveInstance(c.Context, config, instance)
	if closeErr := instance.Close(); err == nil {
		err = closeErr
	}
	return err
}

// serveInstance serves an instance's snapshots and, unless containerd_address is empty,
// its diff service.
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

// limitMemory returns the memory of the listing at the start to the system, and makes the
// garbage collector run more often than by default: the daemon is mostly idle, and the
// containers need the memory. GOGC in the environment overrides that.
func limitMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
	debug.FreeOSMemory()
}
