package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/zfstpl/zfstpl/plugin"
	"github.com/zfstpl/zfstpl/snapshotter/inspect"
	"github.com/zfstpl/zfstpl/snapshotter/space"
)

// dryRun prints what a cleanup would destroy. It reads the pool and changes nothing.
func dryRun(c *cli.Context, config plugin.Config) error {
	base, pool, entries, err := inspectBase(c)
	if err != nil {
		return err
	}
	defer pool.Close()
	limits, err := inspect.Limits(c.Context, pool, base)
	if err != nil {
		return err
	}
	plan := space.NewPlan(inspect.Nodes(entries), limits, policyOf(config, c.Bool("all")), time.Now())
	return printPlan(c.App.Writer, plan, tree{full: c.Bool("full")})
}

func policyOf(config plugin.Config, all bool) space.Policy {
	return space.Policy{Keep: config.Cache.Keep.Duration, MaxBytes: config.Cache.MaxBytes.Bytes, Pressure: config.Cache.Pressure, All: all}
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
