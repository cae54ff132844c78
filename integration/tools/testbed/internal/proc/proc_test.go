package proc

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func TestRunKillsTheWholeGroup(t *testing.T) {
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(context.Background())
	var out strings.Builder
	cmd := exec.Command("sh", "-c", "sleep 60 & echo; wait")
	started := make(chan struct{})
	cmd.Stdout = writer(func(p []byte) { out.Write(p); close(started) })
	go func() {
		<-started
		cancel(cause)
	}()
	began := time.Now()
	if err := Run(ctx, cmd); !errors.Is(err, cause) {
		t.Error(err)
	}
	// The sleep holds the output open: had it survived, Wait would have waited.
	if time.Since(began) > 30*time.Second {
		t.Error("the group was not killed")
	}
	if err := Run(ctx, exec.Command("true")); !errors.Is(err, cause) {
		t.Error("it was started in spite of the context:", err)
	}
}

type writer func(p []byte)

func (w writer) Write(p []byte) (int, error) {
	w(p)
	return len(p), nil
}

func TestRunReturnsTheExitStatus(t *testing.T) {
	var exit *exec.ExitError
	if err := Run(context.Background(), exec.Command("sh", "-c", "exit 3")); !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Error(err)
	}
	if err := Run(context.Background(), exec.Command("/nonexistent")); err == nil {
		t.Error("it was started")
	}
}
