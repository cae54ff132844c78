package main

import (
	"encoding/json"

	"github.com/urfave/cli/v2"
)

func lsCommand() *cli.Command {
	return &cli.Command{
		Name:  "ls",
		Usage: "show templates and runtimes as a tree",
		Description: "USED is the space that only this dataset holds, REFER the space of its whole\n" +
			"content, both as ZFS accounts them. OWNER is the containerd snapshot. The command\n" +
			"reads the pool and changes nothing; it needs no daemon.",
		Flags: []cli.Flag{configFlag, datasetFlag,
			&cli.BoolFlag{Name: "json", Usage: "print one JSON array instead of the tree"},
			&cli.BoolFlag{Name: "full", Usage: "do not shorten chain IDs and names"}},
		Before: noArguments,
		Action: ls,
	}
}

func ls(c *cli.Context) error {
	base, pool, entries, err := inspectBase(c)
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
