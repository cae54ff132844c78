package main

import (
	"errors"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/zfstpl/zfstpl/integration/tools/testbed/internal/ui"
	"github.com/zfstpl/zfstpl/integration/tools/testbed/internal/wire"
)

// forever is a time limit for people.
const forever = 10 * 365 * 24 * time.Hour

func shellCommand(u *ui.UI) *cli.Command {
	return &cli.Command{
		Name:  "shell",
		Usage: "boot a machine and get a prompt in it",
		Flags: machineFlags(),
		Action: func(c *cli.Context) (err error) {
			b, err := configure(c, u)
			defer func() { err = errors.Join(err, b.close()) }()
			if err != nil {
				return err
			}
			config := b.config
			config.Order.Args = []string{"bash", "-l"}
			config.Order.TTY, config.Order.Stdin, config.Input = true, true, os.Stdin
			config.Stdout, config.Stderr = os.Stdout, os.Stderr
			config.Timeout = forever
			u.Say("booting; the machine is gone when you leave the shell")
			restore, err := takeTerminal(&config.Order, &config.Windows)
			if err != nil {
				return err
			}
			err = boot(c, u, config)
			return errors.Join(err, restore())
		},
	}
}

// takeTerminal makes the terminal pass on every key, and watches its size.
// Where there is no terminal it does nothing, so that a script can be fed in.
func takeTerminal(order *wire.Order, windows *<-chan wire.Window) (restore func() error, err error) {
	fd := int(os.Stdin.Fd())
	if !term.IsTerminal(fd) {
		return func() error { return nil }, nil
	}
	order.Window = windowOf(fd)
	if name := os.Getenv("TERM"); name != "" {
		order.Env = append(order.Env, "TERM="+name)
	}
	changes := make(chan wire.Window)
	*windows = changes
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	go func() {
		for range resized {
			changes <- windowOf(fd)
		}
	}()
	state, err := term.MakeRaw(fd)
	if err != nil {
		return nil, err
	}
	return func() error { return term.Restore(fd, state) }, nil
}

func windowOf(fd int) wire.Window {
	cols, rows, err := term.GetSize(fd)
	if err != nil {
		return wire.Window{}
	}
	return wire.Window{Rows: uint16(rows), Cols: uint16(cols)}
}
