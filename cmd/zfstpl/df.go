package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"github.com/zfstpl/zfstpl/snapshotter/inspect"
	"github.com/zfstpl/zfstpl/snapshotter/space"
)

func dfCommand() *cli.Command {
	return &cli.Command{
		Name:  "df",
		Usage: "show the space of images, containers, cache and garbage",
		Description: "An image is a committed snapshot without children. UNIQUE is the space that only\n" +
			"this image holds, SHARED the space that other images hold too, as ZFS stores it.\n" +
			"The command reads the pool and changes nothing; it needs no daemon.",
		Flags: []cli.Flag{configFlag, datasetFlag,
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object instead of the table"},
			&cli.BoolFlag{Name: "full", Usage: "do not shorten chain IDs"}},
		Before: noArguments,
		Action: df,
	}
}

func df(c *cli.Context) error {
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
	accounts := inspect.Account(entries)
	if c.Bool("json") {
		enc := json.NewEncoder(c.App.Writer)
		enc.SetIndent("", "  ")
		return enc.Encode(struct {
			inspect.Accounts
			Limits []space.Limit `json:"limits"`
		}{accounts, limits})
	}
	return printAccounts(c.App.Writer, accounts, limits, tree{full: c.Bool("full")}.name)
}

func printAccounts(w io.Writer, a inspect.Accounts, limits []space.Limit, name func(string) string) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "IMAGE\tNAMESPACES\tUNIQUE\tSHARED\tCONTAINERS")
	for _, i := range a.Images {
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%d\n", name(i.Dataset), printable(strings.Join(i.Namespaces, ", "), maxName), size(i.Unique), size(i.Shared), i.Containers)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nimages %s, containers %s, cached %s, garbage %s, other %s; %s can be reclaimed\n",
		size(a.Templates), size(a.Containers), size(a.Cached), size(a.Garbage), size(a.Other), size(a.Reclaimable))
	for _, l := range limits {
		fmt.Fprintln(w, l)
		if l.Blocked != "" {
			fmt.Fprintf(w, "  %s\n", l.Blocked)
		}
	}
	return nil
}
