//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// A service is a daemon of ours, with its log in a file.
type service struct {
	name string
	log  string
	cmd  *exec.Cmd
	// ended is closed when the process is gone; err is how.
	ended chan struct{}
	err   error
}

// patience is how long a service may take to start or to end. Under emulation
// everything is fifteen times slower.
const patience = 2 * time.Minute

// start shows and starts a service, and waits until it says that it is ready.
func (t *tour) start(ctx context.Context, name string, args ...string) (*service, error) {
	t.background(args...)
	ready, err := listenReady(t.path(name + ".notify"))
	if err != nil {
		return nil, err
	}
	defer ready.close()
	s := &service{name: name, log: t.path(name + ".log"), ended: make(chan struct{})}
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the process has its own
	s.cmd = exec.Command(args[0], args[1:]...)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+ready.path, "TMPDIR="+t.tmp)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		s.err = s.cmd.Wait()
		close(s.ended)
	}()
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("%s did not say that it is ready", name))
	defer cancel()
	select {
	case err := <-ready.said:
		return s, err
	case <-s.ended:
		return s, fmt.Errorf("%s ended at once: %w", name, errors.Join(errors.New(s.state()), s.err))
	case <-ctx.Done():
		return s, context.Cause(ctx)
	}
}

// stop asks the service to end and wants it to do so with 0.
func (s *service) stop(ctx context.Context) error {
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("%s has ended before its time: %w", s.name, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("%s did not end on SIGTERM", s.name))
	defer cancel()
	select {
	case <-s.ended:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if s.err != nil {
		return fmt.Errorf("%s did not end well: %w", s.name, s.err)
	}
	return nil
}

func (s *service) state() string {
	if s.cmd.ProcessState == nil {
		return "running"
	}
	return s.cmd.ProcessState.String()
}

// showLogs quotes the end of what the services have written.
func (t *tour) showLogs() {
	for _, name := range []string{"daemon", "containerd"} {
		content, err := os.ReadFile(t.path(name + ".log"))
		if err != nil || len(content) == 0 {
			continue
		}
		t.say("the end of %s's log:", name)
		t.quote(tail(string(content), 15))
	}
}

func tail(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
