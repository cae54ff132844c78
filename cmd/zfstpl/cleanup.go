package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/urfave/cli/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/zfstpl/zfstpl/plugin"
	"github.com/zfstpl/zfstpl/plugin/control"
	"github.com/zfstpl/zfstpl/snapshotter"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
)

func cleanupCommand() *cli.Command {
	return &cli.Command{
		Name:  "cleanup",
		Usage: "destroy garbage and expired cached layers",
		Description: "A cleanup destroys garbage, and the cached layers that exceed the limits under\n" +
			"[cache]. --dry-run shows both and changes nothing. If a daemon serves the base,\n" +
			"the daemon does the cleanup; otherwise this command does it under the same\n" +
			"lock. Ctrl-C stops it, and the next cleanup destroys the rest.",
		Flags: []cli.Flag{configFlag, datasetFlag, addressFlag,
			&cli.BoolFlag{Name: "dry-run", Usage: "destroy nothing: list what a cleanup would destroy, in this order, and why"},
			&cli.BoolFlag{Name: "all", Usage: "with --dry-run: list what is destroyed when something does not fit"},
			&cli.BoolFlag{Name: "full", Usage: "with --dry-run: do not shorten chain IDs"},
			&cli.BoolFlag{Name: "if-needed", Usage: "do nothing unless the base says that a cleanup is due (property " + layout.CleanupProperty + "); print only warnings and errors"},
			&cli.BoolFlag{Name: "check", Usage: "destroy nothing: exit with 0 if a cleanup is due, with 1 if not, with 255 if that is not known"},
			&cli.BoolFlag{Name: "stop", Usage: "stop the running cleanup, in the daemon or in a command; in mode background the next one starts after containerd's next garbage collection"}},
		Action: cleanup,
	}
}

func cleanup(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return notKnown{err} // an argument may hide --check, which follows it
	}
	err := runCleanup(c)
	if c.Bool("check") && err != nil && !errors.Is(err, errSilent) {
		return notKnown{err}
	}
	return err
}

func runCleanup(c *cli.Context) error {
	config, err := settings(c)
	if err != nil {
		return err
	}
	if _, err := config.Check(); err != nil {
		return err
	}
	if err := checkCleanupFlags(c); err != nil {
		return err
	}
	switch {
	case c.Bool("dry-run"):
		return dryRun(c, config)
	case c.Bool("stop"):
		return stopCleanup(c, config)
	case c.Bool("check"):
		due, err := cleanupIsDue(c)
		if err == nil && !due {
			return errSilent
		}
		return err
	case c.Bool("if-needed"):
		if due, err := cleanupIsDue(c); err != nil || !due {
			return err
		}
	}
	return cleanNow(c, config)
}

// checkCleanupFlags returns an error for flags that exclude each other.
func checkCleanupFlags(c *cli.Context) error {
	modes := 0
	for _, flag := range []string{"dry-run", "if-needed", "check", "stop"} {
		if c.Bool(flag) {
			modes++
		}
	}
	if modes > 1 {
		return errors.New("--dry-run, --if-needed, --check and --stop exclude each other: give one of them")
	}
	if !c.Bool("dry-run") && (c.Bool("all") || c.Bool("full")) {
		return errors.New("--all and --full need --dry-run")
	}
	return nil
}

// cleanupIsDue reports whether the base's property says that a cleanup is due. It does
// not ask a daemon.
func cleanupIsDue(c *cli.Context) (bool, error) {
	base, pool, err := open(c)
	if err != nil {
		return false, err
	}
	defer pool.Close()
	mark, err := plugin.ReadMark(c.Context, pool, base)
	return mark.IsDue(time.Now()), err
}

func cleanNow(c *cli.Context, config plugin.Config) error {
	if c.Bool("if-needed") {
		config.LogLevel = "warn"
	}
	if err := log.SetLevel(config.LogLevel); err != nil {
		return err
	}
	shown := newProgress(c.App.ErrWriter, c.Bool("if-needed"))
	err := cleanByDaemonOrAlone(c.Context, config, shown.report)
	shown.end()
	interrupted, stopped := err != nil && c.Err() != nil, errdefs.IsAborted(err)
	var other *plugin.InUseError
	switch {
	case c.Bool("if-needed") && (interrupted || stopped):
		return nil // the cleanup mark stays
	case interrupted:
		return errors.New("interrupted: the next cleanup destroys the rest")
	case stopped:
		return errors.New("stopped: the next cleanup destroys the rest")
	case c.Bool("if-needed") && errors.As(err, &other) && !isServedElsewhere(other, config):
		return nil // the process that has the base cleans it up
	case err != nil:
		return err
	}
	if !c.Bool("if-needed") {
		_, err = fmt.Fprintln(c.App.Writer, shown.summary())
	}
	return err
}

// cleanByDaemonOrAlone runs a cleanup in the daemon that serves the base or, if there is
// none, in this process.
func cleanByDaemonOrAlone(ctx context.Context, config plugin.Config, report func(snapshotter.CleanupProgress)) error {
	err := cleanByDaemon(ctx, config.Address, config.Dataset, report)
	if !notServed(err) {
		return err
	}
	err = cleanAlone(ctx, config, report)
	var other *plugin.InUseError
	if !errors.As(err, &other) || !isServedElsewhere(other, config) {
		return err
	}
	return explainUnreachable(other, cleanByDaemon(ctx, other.Address(), config.Dataset, report))
}

// notServed reports whether err means that no daemon serves the base at an address.
func notServed(err error) bool { return errors.Is(err, errNoDaemon) || errdefs.IsNotImplemented(err) }

// isServedElsewhere reports whether the owner of the base serves it at another address
// than the configured one.
func isServedElsewhere(owner *plugin.InUseError, config plugin.Config) bool {
	return owner.Address() != "" && owner.Address() != config.Address
}

// explainUnreachable returns err or, if the owner of the base does not serve it at the
// address in its lock, an error that says so.
func explainUnreachable(owner *plugin.InUseError, err error) error {
	if !notServed(err) {
		return err
	}
	return fmt.Errorf("%w, but nothing listens there: give its socket with --address, or restart it with the configured address", owner)
}

var errNoDaemon = errors.New("no daemon serves the socket")

// dialDaemon returns a connection to the daemon, or an error that is errNoDaemon.
func dialDaemon(address string) (*grpc.ClientConn, error) {
	conn, err := net.Dial("unix", address)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoDaemon, err)
	}
	conn.Close()
	return grpc.NewClient("unix://"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
}

func cleanByDaemon(ctx context.Context, address, base string, report func(snapshotter.CleanupProgress)) error {
	conn, err := dialDaemon(address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := control.Clean(ctx, conn, base, report); err != nil {
		return fmt.Errorf("daemon at %s: %w", address, err)
	}
	return nil
}

// cleanAlone runs a cleanup in this process.
func cleanAlone(ctx context.Context, config plugin.Config, report func(snapshotter.CleanupProgress)) error {
	cleaner, err := plugin.OpenCleaner(ctx, config)
	if err != nil {
		return err
	}
	return errors.Join(cleaner.Clean(ctx, report), cleaner.Close())
}

func stopCleanup(c *cli.Context, config plugin.Config) error {
	was, err := stopByDaemonOrAlone(c.Context, config)
	if err != nil {
		return err
	}
	message := "no cleanup is running"
	if was {
		message = "the cleanup ends after the datasets that it is destroying"
	}
	_, err = fmt.Fprintln(c.App.Writer, message)
	return err
}

func stopByDaemonOrAlone(ctx context.Context, config plugin.Config) (bool, error) {
	was, err := stopByDaemon(ctx, config.Address, config.Dataset)
	if !notServed(err) {
		return was, err
	}
	was, err = plugin.StopCleaner(ctx, config)
	var other *plugin.InUseError
	if !errors.As(err, &other) || !isServedElsewhere(other, config) {
		return was, err
	}
	was, err = stopByDaemon(ctx, other.Address(), config.Dataset)
	return was, explainUnreachable(other, err)
}

func stopByDaemon(ctx context.Context, address, base string) (bool, error) {
	conn, err := dialDaemon(address)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	return control.Stop(ctx, conn, base)
}
