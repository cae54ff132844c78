//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/zfstpl/zfstpl/integration/bench/internal/report"
	"github.com/zfstpl/zfstpl/integration/bench/internal/result"
)

func reportCommand() *cli.Command {
	return &cli.Command{
		Name: "report", Usage: "make performance.md and its plot of measurements",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "in", Usage: "the `FILE` that was measured into", Required: true},
			&cli.StringFlag{Name: "out", Usage: "the `DIR` for what is made", Value: "."},
		},
		Action: func(c *cli.Context) error { return makeReport(c.String("in"), c.String("out")) },
	}
}

func makeReport(in, out string) error {
	file, err := os.Open(in)
	if err != nil {
		return err
	}
	defer file.Close() // only read
	set, err := result.Read(file)
	if err != nil {
		return err
	}
	if len(set.Cases()) == 0 {
		return fmt.Errorf("%s has no measurements", in)
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	var text, plot bytes.Buffer
	_, plotErr := report.Plot(&plot, set, report.Prepare)
	if err := errors.Join(report.Document(&text, set), plotErr); err != nil {
		return err
	}
	document, picture := filepath.Join(out, "performance.md"), filepath.Join(out, report.PlotName)
	if err := errors.Join(os.WriteFile(document, text.Bytes(), 0o644), os.WriteFile(picture, plot.Bytes(), 0o644)); err != nil {
		return err
	}
	fmt.Printf("written: %s and %s\n", document, picture)
	return nil
}
