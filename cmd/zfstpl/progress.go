package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/zfstpl/zfstpl/snapshotter"
)

// progress prints the progress of a cleanup: a bar on a terminal, otherwise a line every
// lineEvery. A cleanup reports to it before it returns, from one goroutine at a time.
type progress struct {
	w        io.Writer
	terminal bool
	silent   bool
	now      snapshotter.CleanupProgress
	printed  time.Time // when the last line was written
	began    time.Time
}

const (
	barWidth  = 30
	lineEvery = 10 * time.Second
)

func newProgress(w io.Writer, silent bool) *progress {
	file, ok := w.(*os.File)
	now := time.Now()
	return &progress{w: w, silent: silent, terminal: ok && term.IsTerminal(int(file.Fd())), began: now, printed: now}
}

func (p *progress) report(now snapshotter.CleanupProgress) {
	p.now = now
	switch {
	case p.silent:
	case p.terminal:
		full := barWidth
		if now.Of > 0 {
			full = barWidth * now.Looked / now.Of
		}
		fmt.Fprintf(p.w, "\r\x1b[K[%s%s] %d of %d datasets", strings.Repeat("#", full), strings.Repeat("-", barWidth-full), now.Looked, now.Of)
	case time.Since(p.printed) >= lineEvery:
		p.printed = time.Now()
		fmt.Fprintf(p.w, "%d of %d datasets\n", now.Looked, now.Of)
	}
}

// end erases the bar.
func (p *progress) end() {
	if p.terminal && !p.silent && p.now.Of > 0 {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}

// summary returns the result of the cleanup in one line.
func (p *progress) summary() string {
	took := time.Since(p.began).Round(100 * time.Millisecond)
	text := fmt.Sprintf("%d datasets destroyed in %s", p.now.Destroyed, took)
	if left := p.now.Looked - p.now.Destroyed; left > 0 {
		text += fmt.Sprintf("; %d could not be destroyed: see the log", left)
	}
	return text
}
