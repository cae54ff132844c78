//go:build linux

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

// A narrator tells the tour. Plain lines only: it may be a serial console that
// listens, or a log.
type narrator struct {
	mu  sync.Mutex
	out io.Writer
	// dir is shown as $D in commands.
	dir string
}

func newNarrator(out io.Writer, dir string) *narrator {
	if shellQuote(dir) != dir {
		dir = "" // no variable replaces it within quotes
	}
	return &narrator{out: out, dir: dir}
}

func (n *narrator) line(format string, args ...any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	fmt.Fprintf(n.out, format+"\n", args...)
}

func (n *narrator) heading(number, of int, s step) {
	n.line("\n==> %d/%d %s\n    %s", number, of, s.title, s.about)
}

// say is a remark.
func (n *narrator) say(format string, args ...any) { n.line("    "+format, args...) }

// command shows what is run, as a shell would take it.
func (n *narrator) command(args ...string) { n.line("    $ %s", n.shell(args)) }

// background is command for what keeps running.
func (n *narrator) background(args ...string) { n.line("    $ %s &", n.shell(args)) }

func (n *narrator) shell(args []string) string {
	text := strings.ReplaceAll(quoteAll(args), "\n", "\n      ")
	if n.dir != "" {
		text = strings.ReplaceAll(text, n.dir, "$D")
	}
	return text
}

// variable shows and sets a variable of the environment.
func (n *narrator) variable(name, value string) error {
	n.line("    $ export %s=%s", name, n.shell([]string{value}))
	return os.Setenv(name, value)
}

// quote shows the text of another program.
func (n *narrator) quote(text string) {
	for line := range strings.Lines(text) {
		n.line("%s", strings.TrimRight("    | "+line, " \n"))
	}
}

// quoted is a writer that quotes line by line as they come.
func (n *narrator) quoted() *lines { return &lines{each: n.quote} }

// lines calls each with every complete line written to it.
type lines struct {
	mu   sync.Mutex
	rest []byte
	each func(string)
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rest = append(l.rest, p...)
	for {
		line, rest, found := bytes.Cut(l.rest, []byte("\n"))
		if !found {
			return len(p), nil
		}
		l.each(string(line) + "\n")
		l.rest = rest
	}
}

// flush passes on a last line that did not end.
func (l *lines) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.rest) > 0 {
		l.each(string(l.rest))
		l.rest = nil
	}
}

// quoteAll writes arguments so that a shell reads them back.
func quoteAll(args []string) string {
	quoted := make([]string, len(args))
	for i, a := range args {
		quoted[i] = shellQuote(a)
	}
	return strings.Join(quoted, " ")
}

func shellQuote(s string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%+=:,./_-"
	if s != "" && strings.Trim(s, plain) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

// mebibytes is short enough for a table and exact enough to compare.
func mebibytes(n int64) string { return fmt.Sprintf("%.2f MiB", float64(n)/(1<<20)) }
