//go:build linux

package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestListed(t *testing.T) {
	require.Empty(t, listed("KEY PARENT KIND \n"))
	require.Empty(t, listed("\n"))
	require.Equal(t, "sha256:1 committed", listed("KEY PARENT KIND \nsha256:1 committed\n"))
}

func TestChosenSteps(t *testing.T) {
	titles := func(o options) []string {
		var titles []string
		for _, s := range (&tour{options: o}).chosen() {
			titles = append(titles, s.title)
		}
		return titles
	}
	all := titles(options{keep: true, manifest: "m"})
	require.Len(t, all, len((&tour{}).steps()))
	require.Len(t, slices.Compact(slices.Sorted(slices.Values(all))), len(all), "titles are unique")
	require.NotContains(t, titles(options{}), "Look around")
	require.NotContains(t, titles(options{}), "Is it the image?")
	require.NotContains(t, titles(options{rehearse: true}), "A pool")
	require.Contains(t, titles(options{rehearse: true}), "Leave no trace")
}

func TestSignalEndsAPauseOrTheTour(t *testing.T) {
	s := watchSignals()
	defer s.stop()
	done := make(chan error, 1)
	go func() { done <- s.wait(t.Context()) }()
	require.Eventually(t, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.pause != nil
	}, 5*time.Second, time.Millisecond)
	s.arrived()
	require.NoError(t, <-done)
	require.NoError(t, s.ctx.Err())
	s.arrived()
	require.ErrorIs(t, context.Cause(s.ctx), errInterrupted)
	require.ErrorIs(t, s.wait(s.ctx), errInterrupted)
}

func TestNewTourRefusesWhatCannotWork(t *testing.T) {
	t.Setenv("PATH", os.Getenv("PATH")) // put back afterwards
	_, err := newTour(options{image: filepath.Join(t.TempDir(), "missing.tar")}, nil)
	require.ErrorIs(t, err, os.ErrNotExist)
	long := filepath.Join(t.TempDir(), strings.Repeat("x", socketLimit))
	require.NoError(t, os.Mkdir(long, 0o700))
	_, err = newTour(options{dir: long}, nil)
	require.ErrorContains(t, err, "too long")
}

func TestRemoveDir(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, removeDir(filepath.Join(dir, "missing")))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "child"), 0o700))
	require.ErrorIs(t, removeDir(dir), syscall.ENOTEMPTY)
	require.NoError(t, removeDir(filepath.Join(dir, "child")))
}
