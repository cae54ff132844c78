//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// preparePath puts the directories of the flags before PATH, and behind it the
// ones that a bare PATH lacks.
func (t *tour) preparePath() error {
	var path []string
	for _, dir := range []string{t.bin, t.containerdBin, os.Getenv("PATH"), "/usr/local/sbin:/usr/sbin:/sbin"} {
		if dir != "" {
			path = append(path, dir)
		}
	}
	return os.Setenv("PATH", strings.Join(path, ":"))
}

// do shows a command, runs it, quotes what it prints and returns that.
func (t *tour) do(ctx context.Context, args ...string) (string, error) {
	t.command(args...)
	quoted := t.quoted()
	defer quoted.flush()
	return t.run(ctx, quoted, args...)
}

// ask runs a command silently and returns what it prints.
func (t *tour) ask(ctx context.Context, args ...string) (string, error) {
	return t.run(ctx, io.Discard, args...)
}

// run returns a command's standard output and copies both its outputs to w. A
// failure says what the command had to say.
func (t *tour) run(ctx context.Context, w io.Writer, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = io.MultiWriter(&stdout, w), io.MultiWriter(&stderr, w)
	cmd.Env = append(os.Environ(), "TMPDIR="+t.tmp)
	// Ctrl-C is for the tour, which then ends what it started, in its order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s: %w%s", quoteAll(args), err, because(stderr.String()))
	}
	return stdout.String(), nil
}

func because(stderr string) string {
	if stderr = strings.TrimSpace(stderr); stderr == "" {
		return ""
	}
	return ": " + stderr
}
