package ui

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestBarIsFullOnlyInTheEnd(t *testing.T) {
	if bar(time.Minute, 0) != "" {
		t.Error("a bar without an expectation")
	}
	for elapsed, full := range map[time.Duration]int{0: 0, time.Minute: 10, 2 * time.Minute: 19, time.Hour: 19} {
		got := bar(elapsed, 2*time.Minute)
		if strings.Count(got, "#") != full || len(got) != barWidth+3 {
			t.Errorf("%s: %q", elapsed, got)
		}
	}
}

func TestPlainLinesWhereThereIsNoTerminal(t *testing.T) {
	var out bytes.Buffer
	u := &UI{w: &out}
	step := u.Begin(time.Minute, "[%d/6] building", 2)
	u.Say("by the way")
	step.End(errors.New("no"))
	lines := strings.Split(out.String(), "\n")
	if len(lines) != 4 || lines[0] != "testbed: [2/6] building ..." || lines[1] != "testbed: by the way" ||
		!strings.HasPrefix(lines[2], "testbed: [2/6] building ... ") || !strings.HasSuffix(lines[2], " (failed)") {
		t.Errorf("%q", lines)
	}
	if strings.ContainsAny(out.String(), "\r\x1b") {
		t.Error("there are control characters")
	}
}

func TestARedrawnLineFitsTheTerminal(t *testing.T) {
	var out bytes.Buffer
	u := &UI{w: &out, terminal: true, width: func() int { return 20 }}
	step := u.Begin(time.Minute, "a title that is longer than the terminal is wide")
	step.End(nil)
	first, _, _ := strings.Cut(strings.TrimPrefix(out.String(), "\r\x1b[K"), "\r")
	if len(first) != 19 {
		t.Errorf("%q", first)
	}
}
