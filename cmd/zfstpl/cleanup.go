package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"text/tabwriter"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/urfave/cli/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/zfstpl/zfstpl/plugin"
	"github.com/zfstpl/zfstpl/plugin/control"
	"github.com/zfstpl/zfstpl/snapshotter/inspect"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/space"
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
	err := byDaemonOrAlone(config, func(conn *grpc.ClientConn, address string) error {
		if err := control.Clean(c.Context, conn, config.Dataset, shown.report); err != nil {
			return fmt.Errorf("daemon at %s: %w", address, err)
		}
		return nil
	}, func() error {
		cleaner, err := plugin.OpenCleaner(c.Context, config)
		if err != nil {
			return err
		}
		return errors.Join(cleaner.Clean(c.Context, shown.report), cleaner.Close())
	})
	shown.end()
	interrupted, stopped := err != nil && c.Err() != nil, errdefs.IsAborted(err)
	owner, inUse := errors.AsType[*plugin.InUseError](err)
	switch {
	case c.Bool("if-needed") && (interrupted || stopped):
		return nil // the cleanup mark stays
	case interrupted:
		return errors.New("interrupted: the next cleanup destroys the rest")
	case stopped:
		return errors.New("stopped: the next cleanup destroys the rest")
	case c.Bool("if-needed") && inUse && !isServedElsewhere(owner, config):
		return nil // the process that has the base cleans it up
	case err != nil || c.Bool("if-needed"):
		return err
	}
	_, err = fmt.Fprintln(c.App.Writer, shown.summary())
	return err
}

func stopCleanup(c *cli.Context, config plugin.Config) error {
	var was bool
	err := byDaemonOrAlone(config, func(conn *grpc.ClientConn, _ string) (err error) {
		was, err = control.Stop(c.Context, conn, config.Dataset)
		return err
	}, func() (err error) {
		was, err = plugin.StopCleaner(c.Context, config)
		return err
	})
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

// byDaemonOrAlone calls byDaemon with a connection to the daemon that serves the base and
// the address of its socket. If no daemon serves the base at the configured address, it
// first calls alone, whose error names the owner of the base.
func byDaemonOrAlone(config plugin.Config, byDaemon func(conn *grpc.ClientConn, address string) error, alone func() error) error {
	err := withDaemon(config.Address, byDaemon)
	if !isNotServed(err) {
		return err
	}
	err = alone()
	owner, inUse := errors.AsType[*plugin.InUseError](err)
	if !inUse || !isServedElsewhere(owner, config) {
		return err
	}
	err = withDaemon(owner.Address(), byDaemon)
	if isNotServed(err) {
		return fmt.Errorf("%w, but nothing listens there: give its socket with --address, or restart it with the configured address", owner)
	}
	return err
}

// isNotServed reports whether err means that no daemon serves the base at an address.
func isNotServed(err error) bool { return errors.Is(err, errNoDaemon) || errdefs.IsNotImplemented(err) }

// isServedElsewhere reports whether the owner of the base serves it at another address
// than the configured one.
func isServedElsewhere(owner *plugin.InUseError, config plugin.Config) bool {
	return owner.Address() != "" && owner.Address() != config.Address
}

var errNoDaemon = errors.New("no daemon serves the socket")

// withDaemon calls fn with a connection to the daemon at an address. The error is
// errNoDaemon if there is none.
func withDaemon(address string, fn func(conn *grpc.ClientConn, address string) error) error {
	probe, err := net.Dial("unix", address)
	if err != nil {
		return fmt.Errorf("%w: %w", errNoDaemon, err)
	}
	probe.Close()
	conn, err := grpc.NewClient("unix://"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	return fn(conn, address)
}

// dryRun prints what a cleanup would destroy. It reads the pool and changes nothing.
func dryRun(c *cli.Context, config plugin.Config) error {
	base, pool, entries, incomplete, err := inspectBase(c)
	if err != nil {
		return err
	}
	defer pool.Close()
	warnIncomplete(c, incomplete)
	limits, err := inspect.Limits(c.Context, pool, base)
	if err != nil {
		return err
	}
	policy := space.Policy{Keep: config.Cache.Keep.Duration, MaxBytes: config.Cache.MaxBytes.Bytes, Pressure: config.Cache.Pressure, All: c.Bool("all")}
	plan := space.NewPlan(inspect.Nodes(entries), limits, policy, time.Now())
	return printPlan(c.App.Writer, plan, tree{full: c.Bool("full")})
}

func printPlan(w io.Writer, plan space.Plan, t tree) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "DATASET\tFREES\tLAST USED\tREASON")
	for _, e := range plan.Evict {
		used := "–"
		if e.Cached {
			used = t.since(e.Since) + " ago"
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", t.name(e.Dataset), size(e.Bytes), used, e.Reason)
	}
	fmt.Fprintf(tw, "%d datasets\t%s\t\t\n", len(plan.Evict), size(plan.Bytes))
	if err := tw.Flush(); err != nil {
		return err
	}
	for _, problem := range plan.Problems {
		fmt.Fprintln(w, problem)
	}
	return nil
}
