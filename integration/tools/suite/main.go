// Command suite is what 'make test' runs: every check of the project, one
// after the other where they need the machine to themselves and side by side
// where they do not, with one summary at the end.
//
// A test that cannot run here is not passed over: it is counted, with the
// reason, and so is a whole step.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var opts options
	flag.StringVar(&opts.only, "only", "", "run only the steps whose name has this `TEXT`")
	flag.StringVar(&opts.run, "run", "", "run only the tests that match this `REGEXP`, in every step")
	flag.StringVar(&opts.bin, "bin", "bin", "`DIR` of the programs under test")
	flag.StringVar(&opts.out, "out", "out", "`DIR` for what the steps wrote")
	flag.StringVar(&opts.lint, "lint", "golangci-lint", "the linter's `PROGRAM`")
	flag.BoolVar(&opts.long, "long", false, "run the long tests too")
	flag.Parse()

	if err := suite(ctx, opts); err != nil {
		fmt.Fprintf(os.Stderr, "suite: %v\n", err)
		os.Exit(1)
	}
}

type options struct {
	only, run, bin, out, lint string
	long                      bool
}

var errFailed = errors.New("not everything passed")

func suite(ctx context.Context, opts options) error {
	if err := os.MkdirAll(opts.out, 0o755); err != nil {
		return err
	}
	began := time.Now()
	var results []result
	for _, s := range stages(opts) {
		results = append(results, runStage(ctx, s, opts)...)
	}
	ok := summarize(os.Stdout, results, time.Since(began))
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	if !ok {
		return errFailed
	}
	return nil
}
