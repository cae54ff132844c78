package machine

import (
	"bytes"
	"errors"
	"regexp"
	"strings"
	"testing"
)

func TestConsoleKeepsTheLastLines(t *testing.T) {
	c := newConsole(failingWriter{})
	for range 3 * consoleLines {
		if _, err := c.Write([]byte("boot\r\n")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Write([]byte("\x1b[31mKernel panic\r\npart" + strings.Repeat("x", 2*maxConsoleLine))); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(c.Tail(3), "\n")
	if len(lines) != 3 || lines[0] != "boot" || lines[1] != "[31mKernel panic" || len(lines[2]) != maxConsoleLine {
		t.Errorf("%q", lines)
	}
}

func TestConsoleFindsThePanic(t *testing.T) {
	c := newConsole(nil)
	write := func(text string) {
		if _, err := c.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	write(strings.Repeat("before\n", 50) + "[    1.0] BUG: unable to handle page fault\nmore\n")
	if account, why := c.Panic(); account != "" || why != "" {
		t.Errorf("%q, %q", account, why)
	}
	write("[    1.1] Kernel panic - not syncing: Fatal exception\n" + strings.Repeat("stack\n", 40))
	account, why := c.Panic()
	if why != "Kernel panic - not syncing: Fatal exception" || strings.Count(account, "\n") != panicContext+42 {
		t.Errorf("%q, %q", account, why)
	}
}

func TestNoiseOfQEMU(t *testing.T) {
	const noise = "qemu: warning: TCG doesn't support requested feature: CPUID\n"
	if got := withoutNoise(noise + "no such file\n" + noise); got != "no such file" {
		t.Errorf("%q", got)
	}
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errors.New("full") }

func TestLineMatcher(t *testing.T) {
	var out bytes.Buffer
	var found []string
	m := &lineMatcher{to: &out, pattern: regexp.MustCompile(`^cut \d`), found: func(line string) { found = append(found, line) }}
	for _, part := range []string{"not cut 1\ncu", "t ", "2", "\ncut 3\n"} {
		if _, err := m.Write([]byte(part)); err != nil {
			t.Fatal(err)
		}
	}
	if len(found) != 1 || found[0] != "cut 2" {
		t.Errorf("%q", found)
	}
	if out.String() != "not cut 1\ncut 2\ncut 3\n" {
		t.Errorf("%q", out.String())
	}
}

func TestLineMatcherOfEndlessLine(t *testing.T) {
	m := &lineMatcher{to: &bytes.Buffer{}, pattern: regexp.MustCompile("never"), found: func(string) { t.Error("found") }}
	for range 100 {
		if _, err := m.Write(make([]byte, maxMatchLine/3)); err != nil {
			t.Fatal(err)
		}
		if len(m.partial) > 2*maxMatchLine {
			t.Fatal("it keeps everything")
		}
	}
}
