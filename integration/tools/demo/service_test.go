//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// serviceVariable makes the test binary a service that ends with its value.
const serviceVariable = "ZFSTPL_DEMO_TEST_SERVICE"

func TestMain(m *testing.M) {
	if how := os.Getenv(serviceVariable); how != "" {
		os.Exit(actAsService(how))
	}
	os.Exit(m.Run())
}

func actAsService(how string) int {
	if how == "fails at once" {
		fmt.Println("no such dataset")
		return 3
	}
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGTERM)
	conn, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	if err != nil {
		return 4
	}
	for _, message := range []string{"STATUS=starting", "STATUS=well\nREADY=1"} {
		if _, err := conn.Write([]byte(message)); err != nil {
			return 5
		}
	}
	<-c
	if how == "ends badly" {
		return 1
	}
	return 0
}

func testTour(t *testing.T) (*tour, *bytes.Buffer) {
	t.Helper()
	var out bytes.Buffer
	// Not t.TempDir: its path may be too long for a socket.
	dir, err := os.MkdirTemp("", "demo-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return &tour{narrator: newNarrator(&out, dir), name: "zfstpl-demo-test", tmp: dir}, &out
}

func TestServiceSaysThatItIsReadyAndEnds(t *testing.T) {
	t.Setenv(serviceVariable, "well")
	tour, out := testTour(t)
	s, err := tour.start(t.Context(), "daemon", os.Args[0])
	require.NoError(t, err)
	require.Contains(t, out.String(), " &\n")
	require.NoError(t, s.stop(t.Context()))
	require.Error(t, s.stop(t.Context()), "a second time it is not there")
}

func TestServiceThatEndsBadlyIsAnError(t *testing.T) {
	t.Setenv(serviceVariable, "ends badly")
	tour, _ := testTour(t)
	s, err := tour.start(t.Context(), "daemon", os.Args[0])
	require.NoError(t, err)
	require.ErrorContains(t, s.stop(t.Context()), "exit status 1")
}

func TestServiceThatFailsAtOnceShowsItsLog(t *testing.T) {
	t.Setenv(serviceVariable, "fails at once")
	tour, out := testTour(t)
	_, err := tour.start(t.Context(), "daemon", os.Args[0])
	require.ErrorContains(t, err, "daemon ended at once: exit status 3")
	tour.showLogs()
	require.Contains(t, out.String(), "the end of daemon's log:\n    | no such dataset\n")
}

func TestRunSaysWhatTheCommandSaid(t *testing.T) {
	tour, out := testTour(t)
	_, err := tour.do(t.Context(), "sh", "-c", "echo out; echo why >&2; exit 2")
	require.ErrorContains(t, err, "exit status 2: why")
	require.Contains(t, out.String(), "    $ sh -c 'echo out; echo why >&2; exit 2'\n")
	require.Contains(t, out.String(), "    | out\n")
	got, err := tour.ask(t.Context(), "printf", "a b")
	require.NoError(t, err)
	require.Equal(t, "a b", got)
}

func TestRunEndsWithItsContext(t *testing.T) {
	tour, _ := testTour(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	started := time.Now()
	_, err := tour.ask(ctx, "sh", "-c", "sleep 60 & wait")
	require.Error(t, err)
	require.Less(t, time.Since(started), 5*time.Second)
}
