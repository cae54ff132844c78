// Command zfstpl is the administrator's command: it creates a base, shows its datasets
// and cleans it up.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/zfstpl/zfstpl/plugin"
	"github.com/zfstpl/zfstpl/snapshotter/inspect"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

func main() {
	end := []os.Signal{syscall.SIGTERM, syscall.SIGINT}
	if !signal.Ignored(syscall.SIGHUP) { // as nohup has it
		end = append(end, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), end...)
	defer stop()
	// The reader of a diff may close the pipe. Writing is an error then, and the command
	// removes its temporary snapshot; without this the signal would end the process at
	// once. (If it were ignored, the commands that zfstpl runs would ignore it too.)
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	if err := app().RunContext(ctx, os.Args); err != nil {
		if !errors.Is(err, errSilent) && !errors.Is(err, syscall.EPIPE) {
			fmt.Fprintf(os.Stderr, "zfstpl: %v\n", err)
		}
		if errors.As(err, &notKnown{}) {
			os.Exit(255)
		}
		os.Exit(1)
	}
}

// notKnown is an error that sets exit status 255. systemd's ExecCondition takes 255 for
// a failure, and 1 to 254 for "no".
type notKnown struct{ error }

func (n notKnown) Unwrap() error { return n.error }

// errSilent sets exit status 1 without a message.
var errSilent = errors.New("no")

func app() *cli.App {
	app := cli.NewApp()
	app.Name = "zfstpl"
	app.Usage = "administer container snapshots on ZFS"
	app.Version = plugin.Version()
	app.HideHelpCommand = true
	app.Commands = []*cli.Command{initCommand(), lsCommand(), dfCommand(), cleanupCommand(), diffCommand(), configCommand(), logCommand()}
	app.Action = func(c *cli.Context) error {
		switch name := c.Args().First(); {
		case !c.Args().Present():
			return cli.ShowAppHelp(c)
		case name == "sweep": // of an older release
			return errors.New("there is no command \"sweep\": use 'zfstpl cleanup --dry-run'")
		default:
			return fmt.Errorf("there is no command %q: 'zfstpl --help' lists the commands", name)
		}
	}
	return app
}

// settings returns the daemon's settings, from its configuration file if there is one
// and from the flags of the command.
func settings(c *cli.Context) (plugin.Config, error) {
	config, err := plugin.LoadConfig(c.String("config"), !c.IsSet("config"))
	if err != nil {
		return config, err
	}
	for name, setting := range map[string]*string{
		"dataset": &config.Dataset, "root": &config.Root, "address": &config.Address,
	} {
		if c.IsSet(name) {
			*setting = c.String(name)
		}
	}
	return config, nil
}

// noArguments returns an error if there are arguments. Options after an argument are not
// read: 'cleanup tank/zfstpl --stop' would start a cleanup.
func noArguments(c *cli.Context) error {
	if c.Args().Present() {
		return fmt.Errorf("unexpected argument %q: this command takes options only, such as --dataset for another base", c.Args().First())
	}
	return nil
}

// open returns the configured base and a client for its pool.
func open(c *cli.Context) (layout.Base, *zfs.Client, error) {
	config, err := settings(c)
	if err != nil {
		return layout.Base{}, nil, err
	}
	base, err := config.Check()
	if err != nil {
		return base, nil, err
	}
	pool, err := plugin.OpenPool(c.Context, base, config.ZFSClient)
	return base, pool, err
}

// inspectBase is open that also returns the datasets of the base. The caller closes the
// client. incomplete is the reason why recent changes may be missing, see inspect.List.
func inspectBase(c *cli.Context) (_ layout.Base, _ *zfs.Client, _ []inspect.Entry, incomplete, err error) {
	base, pool, err := open(c)
	if err != nil {
		return base, nil, nil, nil, err
	}
	entries, incomplete, err := plugin.List(c.Context, pool, base)
	if err != nil {
		return base, nil, nil, nil, errors.Join(err, pool.Close())
	}
	return base, pool, entries, incomplete, nil
}

// warnIncomplete warns that a listing may lack recent changes.
func warnIncomplete(c *cli.Context, incomplete error) {
	if incomplete != nil {
		fmt.Fprintf(c.App.ErrWriter, "zfstpl: recent changes may be missing: %v\n", incomplete)
	}
}

var (
	configFlag  = &cli.StringFlag{Name: "config", Aliases: []string{"c"}, Value: plugin.DefaultConfigFile, Usage: "the daemon's configuration `FILE`"}
	datasetFlag = &cli.StringFlag{Name: "dataset", Usage: "base `DATASET` (default: the configured one)"}
	rootFlag    = &cli.StringFlag{Name: "root", Usage: "`DIR` where the base is mounted (default: its mountpoint property, else " + plugin.DefaultRoot + ")"}
	addressFlag = &cli.StringFlag{Name: "address", Usage: "the daemon's unix `SOCKET` (default: " + plugin.DefaultAddress + ")"}
)
