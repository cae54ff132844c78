//go:build linux

package rig

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Run runs a command to its end and returns what it wrote to its standard
// output. Ctrl-C does not reach it: it is asked to end with the context.
func Run(ctx context.Context, args ...string) (string, error) {
	var stdout bytes.Buffer
	err := run(ctx, &stdout, args...)
	return stdout.String(), err
}

// runUntilOutput runs a command to its end and returns the time until its first output.
func runUntilOutput(ctx context.Context, args ...string) (time.Duration, error) {
	first := firstWrite{began: time.Now()}
	if err := run(ctx, &first, args...); err != nil {
		return 0, err
	}
	if first.took == 0 {
		return 0, fmt.Errorf("%s: no output", strings.Join(args, " "))
	}
	return first.took, nil
}

// firstWrite measures the time until the first write.
type firstWrite struct {
	began time.Time
	took  time.Duration
}

func (w *firstWrite) Write(p []byte) (int, error) {
	if w.took == 0 {
		w.took = time.Since(w.began)
	}
	return len(p), nil
}

func run(ctx context.Context, stdout io.Writer, args ...string) error {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = stdout, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return nil
}
