//go:build linux

package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

var errInterrupted = errors.New("interrupted")

// signals turns Ctrl-C into the end of the tour, or of a pause in it.
type signals struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	c      chan os.Signal

	mu    sync.Mutex
	pause chan struct{}
}

func watchSignals() *signals {
	s := &signals{c: make(chan os.Signal, 1)}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	signal.Notify(s.c, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		for range s.c {
			s.arrived()
		}
	}()
	return s
}

func (s *signals) stop() {
	signal.Stop(s.c)
	close(s.c)
	s.cancel(nil)
}

// arrived ends a pause, or the tour if there is none.
func (s *signals) arrived() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pause == nil {
		s.cancel(errInterrupted)
		return
	}
	close(s.pause)
	s.pause = nil
}

// wait pauses until a signal comes, which is not passed on, or ctx ends.
func (s *signals) wait(ctx context.Context) error {
	pause := make(chan struct{})
	s.mu.Lock()
	s.pause = pause
	s.mu.Unlock()
	select {
	case <-pause:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
