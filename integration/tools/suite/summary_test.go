package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The end of a long output shows what went wrong.
func TestSummaryEndsWithWhatFailed(t *testing.T) {
	t.Parallel()
	log := filepath.Join(t.TempDir(), "vet.log")
	if err := os.WriteFile(log, []byte("x.go:1: no such package\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	results := []result{
		{step: step{name: "vet"}, err: errors.New("exit status 1"), log: log},
		{step: step{name: "unit", tests: true}, passed: 2,
			failed:  []failure{{"p TestBroken", "p_test.go:7: want 1, got 2\n"}},
			skipped: []skip{{"TestA", "no pool"}, {"TestB", "no pool"}, {"TestC", "no root"}}},
	}
	var out bytes.Buffer
	if summarize(&out, results, time.Minute) {
		t.Error("said that all is well")
	}
	text := out.String()
	if !strings.HasSuffix(text, "\n2 passed, 2 failed, 3 skipped\n") {
		t.Errorf("the last line is no count in\n%s", text)
	}
	steps, rest, _ := strings.Cut(text, "no root\n")
	for _, want := range []string{"2 (TestA, TestB): no pool", "1 (TestC): "} {
		if !strings.Contains(steps, want) {
			t.Errorf("no %q with the steps in\n%s", want, text)
		}
	}
	for _, want := range []string{"vet: exit status 1", "x.go:1: no such package", "FAIL p TestBroken", "want 1, got 2"} {
		if !strings.Contains(rest, want) {
			t.Errorf("no %q after the steps in\n%s", want, text)
		}
	}
}

func TestReason(t *testing.T) {
	t.Parallel()
	for output, want := range map[string]string{
		"=== RUN   TestA\n    a_test.go:12: needs ZFS: load it\n--- SKIP: TestA\n": "needs ZFS: load it",
		"no place: kept whole\n": "no place: kept whole",
		"--- SKIP: TestA\n":      "no reason given",
	} {
		if got := reason(output); got != want {
			t.Errorf("reason(%q) = %q, want %q", output, got, want)
		}
	}
}
