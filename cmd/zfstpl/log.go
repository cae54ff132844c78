package main

import (
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/zfstpl/zfstpl/plugin"
	"github.com/zfstpl/zfstpl/snapshotter/inspect"
)

func logCommand() *cli.Command {
	return &cli.Command{
		Name:  "log",
		Usage: "show the state of the log of a base",
		Description: "The log is a file in the root directory of the base. It has the changes of\n" +
			"snapshots that the properties of the datasets do not have yet. If it does not\n" +
			"belong to the state of the pool, the daemon does not start, and 'log discard'\n" +
			"is the way out if the right file cannot be put back.",
		Flags:  []cli.Flag{configFlag, datasetFlag},
		Action: showLog,
		Subcommands: []*cli.Command{{
			Name:  "discard",
			Usage: "continue without a log that does not belong to the pool",
			Description: "Changes of snapshots that only this log had are lost. Runtimes without a record\n" +
				"are garbage, which the next cleanup destroys. Without --yes the command lists\n" +
				"them and changes nothing. The file is renamed, not removed.",
			Flags:  []cli.Flag{configFlag, datasetFlag, &cli.BoolFlag{Name: "yes", Usage: "discard the log"}},
			Before: noArguments,
			Action: discardLog,
		}},
	}
}

func showLog(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	base, pool, err := open(c)
	if err != nil {
		return err
	}
	defer pool.Close()
	state, err := plugin.LogState(c.Context, pool, base)
	switch {
	case err != nil:
		return err
	case state.Problem != nil:
		return state.Problem
	case !state.Exists:
		_, err = fmt.Fprintf(c.App.Writer, "%s has no log: the daemon creates it at its next start\n", base)
	default:
		_, err = fmt.Fprintf(c.App.Writer, "%d changes are in the log and may not be in the properties yet\n", state.Entries)
	}
	return err
}

func discardLog(c *cli.Context) error {
	config, err := settings(c)
	if err != nil {
		return err
	}
	if c.Bool("yes") {
		renamed, err := plugin.DiscardLog(c.Context, config)
		if err != nil {
			return err
		}
		message := "discarded the log: there was no file"
		if renamed != "" {
			message = "discarded the log: its file is now " + renamed + " in the root directory of the base"
		}
		_, err = fmt.Fprintln(c.App.Writer, message)
		return err
	}
	_, pool, entries, incomplete, err := inspectBase(c)
	if err != nil {
		return err
	}
	defer pool.Close()
	if incomplete == nil {
		return errors.New("the log belongs to the state of the pool: there is no reason to discard it")
	}
	fmt.Fprintf(c.App.Writer, "%v\n\nRuntimes without a record, which the next cleanup after 'zfstpl log discard --yes' destroys:\n", incomplete)
	for _, e := range entries {
		if e.State == inspect.Garbage {
			fmt.Fprintf(c.App.Writer, "  %s\t%s\n", e.Dataset, size(e.Used))
		}
	}
	_, err = fmt.Fprintln(c.App.Writer, "To keep the files of one, clone a snapshot of it to a dataset outside of the base first.")
	return err
}
