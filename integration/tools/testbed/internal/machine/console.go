package machine

import (
	"bytes"
	"io"
	"strings"
	"sync"
)

// maxConsoleLine limits what is remembered of a line without an end.
const maxConsoleLine = 400

// console remembers the last lines that were written to it, and passes
// everything on. It never fails, as the guest would block on its console.
type console struct {
	mu      sync.Mutex
	all     io.Writer
	lines   []string
	partial []byte
}

const consoleLines = 200

func newConsole(all io.Writer) *console {
	return &console{all: all}
}

func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all != nil {
		if _, err := c.all.Write(p); err != nil {
			c.all = nil // the tail is more important than the copy
		}
	}
	for _, b := range p {
		switch {
		case b == '\n':
			c.keep()
		case b == '\t' || b >= ' ' && b != 0x7f:
			if len(c.partial) < maxConsoleLine {
				c.partial = append(c.partial, b)
			}
		}
	}
	return len(p), nil
}

func (c *console) keep() {
	c.lines = append(c.lines, string(bytes.TrimRight(c.partial, " ")))
	c.partial = c.partial[:0]
	if len(c.lines) > 2*consoleLines {
		c.lines = append([]string(nil), c.lines[consoleLines:]...)
	}
}

// Tail returns the last n lines.
func (c *console) Tail(n int) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	lines := c.lines
	if len(c.partial) > 0 {
		lines = append(lines[:len(lines):len(lines)], string(c.partial))
	}
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// panicMarks begin the kernel's, or ZFS's, account of its own death.
var panicMarks = []string{"Kernel panic - not syncing", "BUG: ", "Oops: ", "PANIC at ", "VERIFY"}

// panicContext is how many lines before the first mark are shown.
const panicContext = 5

// Panic returns the lines of the kernel's last words and the line that says
// why it panicked, or nothing if it did not.
func (c *console) Panic() (account, why string) {
	lines := strings.Split(c.Tail(2*consoleLines), "\n")
	for i, line := range lines {
		for _, mark := range panicMarks {
			if account == "" && strings.Contains(line, mark) {
				account = strings.Join(lines[max(0, i-panicContext):], "\n")
			}
		}
		if at := strings.Index(line, panicMarks[0]); at >= 0 {
			why = line[at:]
		}
	}
	if why == "" {
		return "", ""
	}
	return account, why
}

// withoutNoise drops what QEMU says of every emulated boot.
func withoutNoise(text string) string {
	var kept []string
	for line := range strings.Lines(text) {
		if !strings.Contains(line, "warning: TCG doesn't support requested feature") {
			kept = append(kept, strings.TrimRight(line, "\n"))
		}
	}
	return strings.Join(kept, "\n")
}
