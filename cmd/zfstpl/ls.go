package main

import (
	"encoding/json"

	"github.com/urfave/cli/v2"
)

func lsCommand() *cli.Command {
	return &cli.Command{
		Name:  "ls",
		Usage: "show templates and runtimes as a tree",
		Description: "OWN is what only this dataset holds, ALL what a container on it sees; both are\n" +
			"as ZFS stores it, compressed. Reads the pool and changes nothing; the daemon\n" +
			"may run or not.",
		Flags: []cli.Flag{configFlag, datasetFlag,
			&cli.BoolFlag{Name: "json", Usage: "print one JSON array instead of the tree"},
			&cli.BoolFlag{Name: "full", Usage: "do not shorten chain IDs and names"}},
		Before: noArguments,
		Action: ls,
	}
}

func ls(c *cli.Context) error {
	base, pool, entries, err := inspect(c)
	if err != nil {
		return err
	}
	defer pool.Close()
	if c.Bool("json") {
		enc := json.NewEncoder(c.App.Writer)
		enc.SetIndent("", "  ")
		return enc.Encode(entries)
	}
	return tree{full: c.Bool("full")}.print(c.App.Writer, base.String(), entries)
}
