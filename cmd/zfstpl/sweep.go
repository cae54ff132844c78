package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/zfstpl/zfstpl/plugin"
	"github.com/zfstpl/zfstpl/snapshotter"
	"github.com/zfstpl/zfstpl/snapshotter/space"
)

func sweepCommand() *cli.Command {
	return &cli.Command{
		Name:  "sweep",
		Usage: "show what a cleanup would destroy, and why",
		Description: "What goes is trash, and of the templates that no image names those that the\n" +
			"settings under [warm] let go, in this order. Reads the pool and changes\n" +
			"nothing; the daemon may run or not. 'zfstpl cleanup' does it.",
		Flags: []cli.Flag{configFlag, datasetFlag,
			&cli.BoolFlag{Name: "dry-run", Usage: "required, so that nobody takes this for the deed"},
			&cli.BoolFlag{Name: "all", Usage: "what would go if something did not fit"},
			&cli.BoolFlag{Name: "full", Usage: "do not shorten chain IDs"}},
		Before: noArguments,
		Action: sweep,
	}
}

func sweep(c *cli.Context) error {
	if !c.Bool("dry-run") {
		return fmt.Errorf("say --dry-run to see what would go; 'zfstpl cleanup' does it")
	}
	config, err := settings(c)
	if err != nil {
		return err
	}
	base, pool, entries, err := inspect(c)
	if err != nil {
		return err
	}
	defer pool.Close()
	limits, err := snapshotter.Limits(c.Context, pool, base)
	if err != nil {
		return err
	}
	plan := space.Sweep(snapshotter.Nodes(entries), limits, policyOf(config, c.Bool("all")), time.Now())
	return printPlan(c.App.Writer, plan, tree{full: c.Bool("full")})
}

func policyOf(config plugin.Config, all bool) space.Policy {
	return space.Policy{Keep: config.Warm.Keep.Duration, MaxBytes: config.Warm.MaxBytes.Bytes, Pressure: config.Warm.Pressure, All: all}
}

func printPlan(w io.Writer, plan space.Plan, t tree) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "DATASET\tGIVES BACK\tLAST USED\tWHY")
	for _, e := range plan.Evict {
		used := "–"
		if e.Warm {
			used = t.since(e.LastUsed) + " ago"
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", t.name(e.Dataset), size(e.Bytes), used, e.Why)
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
