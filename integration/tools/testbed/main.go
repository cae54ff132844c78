package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/zfstpl/zfstpl/integration/tools/testbed/internal/guest"
	"github.com/zfstpl/zfstpl/integration/tools/testbed/internal/machine"
	"github.com/zfstpl/zfstpl/integration/tools/testbed/internal/ui"
)

// Exit statuses of testbed's own; all others are the command's.
const (
	statusTimeout     = 124
	statusFailed      = 125
	statusInterrupted = 130
)

func main() {
	if guest.IsInit() {
		guest.Main()
	}
	os.Exit(run(os.Args, ui.New()))
}

// errInterrupted is the cause of everything that ends early by a signal.
var errInterrupted = errors.New("interrupted")

// exitStatus is an "error" of a command that has said all there is to say.
type exitStatus int

func (s exitStatus) Error() string {
	return fmt.Sprintf("exit status %d", int(s))
}

func run(args []string, u *ui.UI) int {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		<-signals
		cancel(errInterrupted)
	}()
	return status(newApp(u).RunContext(ctx, args), u)
}

// status returns the exit status and prints what went wrong.
func status(err error, u *ui.UI) int {
	var code exitStatus
	var died *machine.GuestError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	case errors.Is(err, errInterrupted):
		u.Say("interrupted")
		return statusInterrupted
	}
	if errors.As(err, &died) {
		u.Show(died.Details())
	}
	u.Say("error: %v", err)
	if errors.Is(err, machine.ErrTimeout) {
		return statusTimeout
	}
	return statusFailed
}

func newApp(u *ui.UI) *cli.App {
	return &cli.App{
		Name:                      "testbed",
		Usage:                     "run commands in a virtual machine that has OpenZFS",
		Description:               description,
		HideVersion:               true,
		DisableSliceFlagSeparator: true,
		ExitErrHandler:            func(*cli.Context, error) {}, // status does it
		Commands: []*cli.Command{
			buildCommand(u), runCommand(u), shellCommand(u), pathCommand(u), cleanCommand(u),
		},
	}
}

const description = `The machine is built once into the user's cache. It has OpenZFS 2.4 or 2.3
(--zfs, or ZFS in the environment) and containerd 2.4 or 1.7 (--containerd, or
CONTAINERD). It runs with KVM where that works and is emulated elsewhere;
TESTBED_ACCEL=kvm or tcg decides over that.

The exit status is that of the command, 124 when it took too long, 125 when
testbed or the machine failed, and 137 when its power was cut.`
