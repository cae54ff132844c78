package ui

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

const (
	redraw = 200 * time.Millisecond
	// reminder is how often a plain log hears of a long step.
	reminder = time.Minute
	barWidth = 20
	prefix   = "testbed: "
)

// UI writes messages and progress. Its methods may be called from any
// goroutine; a write that fails is not worth failing for.
type UI struct {
	mu       sync.Mutex
	w        io.Writer
	terminal bool
	width    func() int
	step     *Step
}

// New returns a UI on standard error.
func New() *UI {
	fd := int(os.Stderr.Fd())
	return &UI{w: os.Stderr, terminal: term.IsTerminal(fd), width: func() int {
		width, _, err := term.GetSize(fd)
		if err != nil {
			return 80
		}
		return width
	}}
}

// Say writes a line.
func (u *UI) Say(format string, args ...any) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.clear()
	fmt.Fprintf(u.w, prefix+format+"\n", args...)
}

// Show writes text as it is, such as the end of a log.
func (u *UI) Show(text string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.clear()
	fmt.Fprintln(u.w, strings.TrimRight(text, "\n"))
}

// clear removes the redrawn line; the lock is held.
func (u *UI) clear() {
	if u.terminal && u.step != nil {
		fmt.Fprint(u.w, "\r\x1b[K")
	}
}

// Step is something that takes a while.
type Step struct {
	ui       *UI
	title    string
	expected time.Duration
	began    time.Time
	end      chan struct{}
	ended    chan struct{}
}

// Begin shows that a step began, which took the expected time when it was
// last done; zero means that it is not known.
func (u *UI) Begin(expected time.Duration, format string, args ...any) *Step {
	s := &Step{
		ui: u, title: fmt.Sprintf(format, args...), expected: expected,
		began: time.Now(), end: make(chan struct{}), ended: make(chan struct{}),
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.terminal {
		fmt.Fprintf(u.w, "%s%s ...\n", prefix, s.title)
	}
	u.step = s
	go s.animate()
	return s
}

func (s *Step) animate() {
	defer close(s.ended)
	interval := reminder
	if s.ui.terminal {
		interval = redraw
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for frame := 0; ; frame++ {
		s.ui.draw(s, frame)
		select {
		case <-ticker.C:
		case <-s.end:
			return
		}
	}
}

func (u *UI) draw(s *Step, frame int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	elapsed := time.Since(s.began)
	if !u.terminal {
		if frame > 0 {
			fmt.Fprintf(u.w, "%s%s ... %s so far\n", prefix, s.title, Elapsed(elapsed))
		}
		return
	}
	spinner := []rune(`|/-\`)[frame%4]
	line := fmt.Sprintf("%s%c %s %s%s", prefix, spinner, s.title, bar(elapsed, s.expected), Elapsed(elapsed))
	runes := []rune(line)
	if width := u.width(); width > 1 && len(runes) >= width {
		runes = runes[:width-1]
	}
	fmt.Fprintf(u.w, "\r\x1b[K%s", string(runes))
}

// bar never fills up before the step has ended.
func bar(elapsed, expected time.Duration) string {
	if expected <= 0 {
		return ""
	}
	full := min(int(barWidth*elapsed/expected), barWidth-1)
	return "[" + strings.Repeat("#", full) + strings.Repeat(".", barWidth-full) + "] "
}

// End ends the step, well or not, and says how long it took.
func (s *Step) End(err error) time.Duration {
	close(s.end)
	<-s.ended
	u := s.ui
	u.mu.Lock()
	defer u.mu.Unlock()
	u.clear()
	u.step = nil
	took := time.Since(s.began)
	outcome := ""
	if err != nil {
		outcome = " (failed)"
	}
	fmt.Fprintf(u.w, "%s%s ... %s%s\n", prefix, s.title, Elapsed(took), outcome)
	return took
}

// Elapsed writes a duration for people.
func Elapsed(d time.Duration) string {
	if d < 10*time.Second {
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}
