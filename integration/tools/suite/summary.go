package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

var (
	sayMu sync.Mutex
	start = time.Now()
)

// say writes a line for the person who waits.
func say(format string, args ...any) {
	sayMu.Lock()
	defer sayMu.Unlock()
	at := time.Since(start).Round(time.Second)
	fmt.Printf("[%7s] %s\n", at, strings.TrimRight(fmt.Sprintf(format, args...), "\n"))
}

// lastLines is how much of a failed step's log is shown.
const lastLines = 60

// end is the last lines of a file, or why they cannot be read.
func end(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return tail(string(text))
}

func tail(text string) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-lastLines):], "\n")
}

// prefixed passes a step's messages on, line by line, with its name.
type prefixed struct {
	name string
	log  io.Writer
	rest []byte
}

func (p *prefixed) Write(b []byte) (int, error) {
	p.rest = append(p.rest, b...)
	for {
		line, rest, ok := bytes.Cut(p.rest, []byte("\n"))
		if !ok {
			return len(b), nil
		}
		fmt.Fprintf(p.log, "%s\n", line)
		say("%s: %s", p.name, line)
		p.rest = rest
	}
}

// summarize prints what became of every step and returns whether all is well.
// The last line counts tests and steps that are no tests.
func summarize(w io.Writer, results []result, took time.Duration) bool {
	passed, failed, cannot := 0, 0, 0
	fmt.Fprintf(w, "\nSummary after %s\n", took.Round(time.Second))
	for _, r := range results {
		verdict := "passed"
		switch {
		case r.cannot != "":
			verdict = "could not run: " + r.cannot
			cannot++
		case len(r.failed) > 0:
			verdict = "FAILED"
			failed += len(r.failed)
		case r.err != nil:
			verdict = "FAILED: " + r.err.Error()
			failed++
		case !r.tests && !r.verbose:
			passed++
		case r.passed == 0:
			verdict = "FAILED: no test ran"
			failed++
		}
		passed += r.passed
		cannot += len(r.skipped)
		counts := ""
		if (r.tests || r.verbose) && r.cannot == "" {
			counts = fmt.Sprintf(", %d passed, %d failed, %d could not run", r.passed, len(r.failed), len(r.skipped))
		}
		fmt.Fprintf(w, "  %-38s %8s  %s%s\n", r.name, r.took.Round(time.Second), verdict, counts)
		for _, line := range byReason(r.skipped) {
			fmt.Fprintf(w, "      could not run here: %s\n", line)
		}
	}
	// What went wrong comes near the end: some keep no more of a long output.
	for _, r := range results {
		explain(w, r)
	}
	fmt.Fprintf(w, "\n%d passed, %d failed, %d skipped\n", passed, failed, cannot)
	return failed == 0
}

// explain repeats what a failed step said.
func explain(w io.Writer, r result) {
	for _, f := range r.failed {
		fmt.Fprintf(w, "\n%s: FAIL %s\n%s\n", r.name, f.name, tail(f.output))
	}
	if r.err != nil && len(r.failed) == 0 && r.log != "" { // one that has begun
		fmt.Fprintf(w, "\n%s: %v; the end of %s:\n%s\n", r.name, r.err, r.log, end(r.log))
	}
}

// byReason names together the tests that were skipped for one reason.
func byReason(skipped []skip) []string {
	var reasons []string
	names := make(map[string][]string)
	for _, s := range skipped {
		if names[s.reason] == nil {
			reasons = append(reasons, s.reason)
		}
		names[s.reason] = append(names[s.reason], s.name)
	}
	var lines []string
	for _, reason := range reasons {
		tests := names[reason]
		lines = append(lines, fmt.Sprintf("%d (%s): %s", len(tests), strings.Join(tests, ", "), reason))
	}
	return lines
}
