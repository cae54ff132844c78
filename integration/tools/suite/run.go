package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// stopTime is how long a step may take to end after Ctrl-C.
const stopTime = 20 * time.Second

// result is what became of a step.
type result struct {
	step
	took    time.Duration
	err     error
	log     string // the file with everything it wrote
	passed  int
	failed  []failure
	skipped []skip
}

// failure is a test or a package that failed, and what it wrote.
type failure struct{ name, output string }

// skip is a test that could not run, and what it said of that.
type skip struct{ name, reason string }

func runStage(ctx context.Context, lanes stage, opts options) []result {
	ran := make([][]result, len(lanes))
	var wg sync.WaitGroup
	for i, steps := range lanes {
		wg.Go(func() {
			for _, s := range steps {
				ran[i] = append(ran[i], s.run(ctx, opts))
			}
		})
	}
	wg.Wait()
	return slices.Concat(ran...)
}

func (s step) run(ctx context.Context, opts options) result {
	r := result{step: s}
	switch {
	case s.cannot != "":
		say("%-40s cannot run here: %s", s.name, s.cannot)
		return r
	case ctx.Err() != nil:
		r.err = ctx.Err()
		return r
	}
	r.log = filepath.Join(opts.out, fileName(s.name)+".log")
	say("%-40s begins, writes to %s", s.name, r.log)
	began := time.Now()
	r.err = s.execute(ctx, &r)
	r.took = time.Since(began).Round(time.Second / 10)
	if r.err == nil && len(r.failed) == 0 {
		say("%-40s passed in %s", s.name, r.took)
	} else {
		say("%-40s FAILED after %s", s.name, r.took)
	}
	return r
}

func (s step) execute(ctx context.Context, r *result) (err error) {
	log, err := os.Create(r.log)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := log.Close(); err == nil {
			err = closeErr
		}
	}()
	cmd := command(ctx, s.args, s.env)
	switch {
	case s.tests:
		return r.runTests(cmd, log)
	case s.verbose:
		return r.runVerbose(ctx, cmd, log)
	default:
		cmd.Stdout, cmd.Stderr = log, log
		return cmd.Run()
	}
}

// command is ended as a person would end it, with all it started.
func command(ctx context.Context, args, env []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	cmd.WaitDelay = stopTime
	return cmd
}

// runTests runs a command that writes test events.
func (r *result) runTests(cmd *exec.Cmd, log io.Writer) error {
	events, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	cmd.Stderr = &prefixed{name: r.name, log: log}
	if err := cmd.Start(); err != nil {
		return err
	}
	readErr := r.read(events, log)
	if err := cmd.Wait(); err != nil {
		return err
	}
	return readErr
}

// runVerbose runs a test binary and turns what it writes into test events.
func (r *result) runVerbose(ctx context.Context, cmd *exec.Cmd, log io.Writer) error {
	convert := command(ctx, []string{"go", "tool", "test2json", "-t", "-p", r.name}, nil)
	from, to, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = to, &prefixed{name: r.name, log: log}
	convert.Stdin = from
	if err := cmd.Start(); err != nil {
		return err
	}
	if err := to.Close(); err != nil {
		return err
	}
	convertErr := r.runTests(convert, log)
	if err := cmd.Wait(); err != nil {
		return err
	}
	return convertErr
}

// event is what 'go test -json' writes.
type event struct {
	Action, Package, Test, Output string
	Elapsed                       float64
}

// read follows the events: it says what ends, and shows what a failed test
// wrote.
func (r *result) read(events io.Reader, log io.Writer) error {
	output := make(map[string]*bytes.Buffer)
	dec := json.NewDecoder(events)
	for {
		var e event
		err := dec.Decode(&e)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("test events: %w", err)
		}
		key := e.Package + " " + e.Test
		switch e.Action {
		case "output":
			fmt.Fprint(log, e.Output)
			if output[key] == nil {
				output[key] = &bytes.Buffer{}
			}
			output[key].WriteString(e.Output)
		case "pass", "fail", "skip":
			r.count(e, output[key])
			delete(output, key)
		}
	}
}

func (r *result) count(e event, output *bytes.Buffer) {
	text := ""
	if output != nil {
		text = output.String()
	}
	name := e.Test
	if name == "" { // the package as a whole
		if e.Action == "fail" {
			r.failed = append(r.failed, failure{e.Package, text})
			say("%s: FAIL %s\n%s", r.name, e.Package, text)
		}
		return
	}
	switch e.Action {
	case "pass":
		r.passed++
		if !strings.Contains(name, "/") && r.verbose {
			say("%s: ok %s %.1fs", r.name, name, e.Elapsed)
		}
	case "skip":
		r.skipped = append(r.skipped, skip{name, reason(text)})
		say("%s: cannot run here: %s: %s", r.name, name, reason(text))
	case "fail":
		r.failed = append(r.failed, failure{e.Package + " " + name, text})
		say("%s: FAIL %s\n%s", r.name, name, text)
	}
}

// reason is what a test said when it skipped itself, without the place where
// it did: many skip themselves for one reason.
func reason(output string) string {
	for line := range strings.Lines(output) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "=== ") || strings.HasPrefix(line, "--- ") {
			continue
		}
		if place, said, ok := strings.Cut(line, ": "); ok && strings.Contains(place, ".go:") {
			return said
		}
		return line
	}
	return "no reason given"
}

func fileName(name string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(" ,'/", r) {
			return '-'
		}
		return r
	}, strings.ReplaceAll(name, ", ", "-"))
}
