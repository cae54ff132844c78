//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/zfstpl/zfstpl/integration/tools/bench/internal/report"
	"github.com/zfstpl/zfstpl/integration/tools/bench/internal/result"
)

func reportCommand() *cli.Command {
	return &cli.Command{
		Name: "report", Usage: "make performance.md and its plot of measurements",
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "in", Usage: "a `FILE` that was measured into; repeatable", Required: true},
			&cli.StringFlag{Name: "out", Usage: "the `DIR` for what is made", Value: "."},
		},
		Action: func(c *cli.Context) error { return makeReport(c.StringSlice("in"), c.String("out")) },
	}
}

func makeReport(in []string, out string) error {
	set, err := result.Read(bytes.NewReader(nil))
	if err != nil {
		return err
	}
	for _, name := range in {
		file, err := os.Open(name)
		if err != nil {
			return err
		}
		defer file.Close() // only read
		more, err := result.Read(file)
		if err != nil {
			return err
		}
		if len(more.Cases()) == 0 {
			return fmt.Errorf("%s has no measurements", name)
		}
		set.Merge(more, strings.TrimSuffix(filepath.Base(name), filepath.Ext(name)))
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
