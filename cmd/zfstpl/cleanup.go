package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/containerd/errdefs"
	"github.com/urfave/cli/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/zfstpl/zfstpl/plugin"
	"github.com/zfstpl/zfstpl/plugin/control"
	"github.com/zfstpl/zfstpl/snapshotter"
)

func cleanupCommand() *cli.Command {
	return &cli.Command{
		Name:  "cleanup",
		Usage: "destroy what nobody needs, now",
		Description: "Trash goes, and what the settings under [warm] let go; 'zfstpl sweep --dry-run'\n" +
			"shows it before. Where the daemon runs it does the work, else this command\n" +
			"does it itself, under the same lock. Ctrl-C stops it; what is left is for the\n" +
			"next time.",
		Flags: []cli.Flag{configFlag, datasetFlag, addressFlag,
			&cli.BoolFlag{Name: "auto", Usage: "only if the base says that one is owed (property " + snapshotter.CleanupProperty + "), and without a word"},
			&cli.BoolFlag{Name: "owed", Usage: "clean nothing: exit with 0 if one is owed, with 1 if not, with 255 where that cannot be told"},
			&cli.BoolFlag{Name: "stop", Usage: "end the one that is under way, wherever it runs; in the background none begins again before containerd's next garbage collection"}},
		Action: cleanup,
	}
}

func cleanup(c *cli.Context) error {
	err := cleanUp(c)
	if c.Bool("owed") && err != nil && !errors.Is(err, errSilent) {
		return notKnown{err}
	}
	return err
}

func cleanUp(c *cli.Context) error {
	config, err := settings(c)
	if err != nil {
		return err
	}
	if _, err := config.Check(); err != nil {
		return err
	}
	if n := count(c.Bool("auto"), c.Bool("owed"), c.Bool("stop")); n > 1 {
		return errors.New("--auto, --owed and --stop: say one of them")
	}
	if c.Bool("stop") {
		return stopCleanup(c, config)
	}
	if c.Bool("auto") || c.Bool("owed") {
		owed, err := isOwed(c)
		switch {
		case err != nil:
			return err
		case !owed && c.Bool("owed"):
			return errSilent
		case !owed || c.Bool("owed"):
			return nil
		}
	}
	return cleanNow(c, config)
}

func count(flags ...bool) (n int) {
	for _, f := range flags {
		if f {
			n++
		}
	}
	return n
}

// isOwed asks the base, and nobody else.
func isOwed(c *cli.Context) (bool, error) {
	base, pool, err := open(c)
	if err != nil {
		return false, err
	}
	defer pool.Close()
	mark, err := plugin.ReadMark(c.Context, pool, base)
	return mark.Owed(time.Now()), err
}

func cleanNow(c *cli.Context, config plugin.Config) error {
	shown := newProgress(c.App.ErrWriter, c.Bool("auto"))
	err := cleanByDaemon(c.Context, config.Address, shown.tell)
	if errors.Is(err, errNoDaemon) {
		err = cleanAlone(c.Context, config, shown.tell)
	}
	shown.end()
	switch {
	case err != nil && c.Err() != nil:
		return errors.New("interrupted; the rest is for the next time")
	case errdefs.IsAborted(err):
		return errors.New("stopped; the rest is for the next time")
	case c.Bool("auto") && errors.Is(err, plugin.ErrInUse):
		return nil // whoever has the base cleans it up
	case err != nil:
		return err
	}
	if !c.Bool("auto") {
		_, err = fmt.Fprintln(c.App.Writer, shown.sum())
	}
	return err
}

var errNoDaemon = errors.New("no daemon serves the socket")

// dialDaemon answers a connection to the daemon, or errNoDaemon.
func dialDaemon(address string) (*grpc.ClientConn, error) {
	conn, err := net.Dial("unix", address)
	if err != nil {
		return nil, errNoDaemon
	}
	conn.Close()
	return grpc.NewClient("unix://"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
}

func cleanByDaemon(ctx context.Context, address string, tell func(snapshotter.Progress)) error {
	conn, err := dialDaemon(address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := control.Clean(ctx, conn, tell); err != nil {
		return fmt.Errorf("the daemon at %s: %w", address, err)
	}
	return nil
}

// cleanAlone is for when there is no daemon.
func cleanAlone(ctx context.Context, config plugin.Config, tell func(snapshotter.Progress)) error {
	cleaner, err := plugin.OpenCleaner(ctx, config)
	if err != nil {
		return err
	}
	return errors.Join(cleaner.Clean(ctx, tell), cleaner.Close())
}

func stopCleanup(c *cli.Context, config plugin.Config) error {
	was, err := stopByDaemon(c.Context, config.Address)
	if errors.Is(err, errNoDaemon) {
		was, err = plugin.StopCleaner(c.Context, config)
	}
	if err != nil {
		return err
	}
	said := "no cleanup is under way"
	if was {
		said = "the cleanup ends behind the datasets it is at"
	}
	_, err = fmt.Fprintln(c.App.Writer, said)
	return err
}

func stopByDaemon(ctx context.Context, address string) (bool, error) {
	conn, err := dialDaemon(address)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	return control.Stop(ctx, conn)
}
