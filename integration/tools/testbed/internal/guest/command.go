package guest

import (
	"archive/tar"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zfstpl/zfstpl/integration/tools/testbed/internal/wire"
)

// grace is how long the command may take to end when it is asked to.
const grace = 3 * time.Second

// execute runs the order and sends everything that it wrote.
func (a *agent) execute() wire.Outcome {
	outcome := wire.Outcome{Code: 126}
	status, err := a.runCommand()
	switch {
	case err != nil:
		outcome.Err = err.Error()
	default:
		outcome.Code = code(status)
		if status.Signaled() {
			outcome.Notes = append(outcome.Notes, "the command was "+describe(status))
		}
	}
	if err := a.sendOut(); err != nil && outcome.Err == "" {
		outcome.Err = "bring back " + a.order.Out + ": " + err.Error()
	}
	outcome.Notes = append(outcome.Notes, fullDisks()...)
	return outcome
}

func (a *agent) runCommand() (unix.WaitStatus, error) {
	streams, err := a.openStreams()
	if err != nil {
		return 0, err
	}
	if err := os.Setenv("HOME", "/root"); err != nil {
		return 0, err
	}
	dir := a.order.Dir
	if dir == "" {
		dir = "/root"
	}
	pid, ended, err := a.reaper.start(a.order.Args, &os.ProcAttr{
		Dir:   dir,
		Env:   a.environment(),
		Files: streams.child,
		Sys:   streams.attributes(),
	})
	streams.closeChild()
	if err != nil {
		return 0, fmt.Errorf("start the command: %w", err)
	}
	stop := make(chan struct{})
	go a.listen(streams, stop)
	go func() {
		<-stop
		a.stop(pid)
	}()
	streams.copyTo(a.link)
	status := <-ended
	return status, streams.finish()
}

func (a *agent) environment() []string {
	terminal := "dumb"
	if a.order.TTY {
		terminal = "linux"
	}
	return append([]string{
		"PATH=" + searchPath, "HOME=/root", "USER=root", "LOGNAME=root", "SHELL=/bin/bash",
		"LANG=C.UTF-8", "TERM=" + terminal, "TESTBED_OUT=" + OutDir, "TESTBED_PUT=" + PutDir,
	}, a.order.Env...)
}

// listen takes what the host sends while the command runs. When the host is
// gone, the guest is not needed.
func (a *agent) listen(streams *streams, stop chan struct{}) {
	stopped := false
	for {
		frame, err := a.frames.Next()
		if err != nil {
			powerOff()
		}
		switch frame.Kind {
		case wire.Stdin:
			streams.input(frame.Payload)
		case wire.Resize:
			var window wire.Window
			if frame.Decode(&window) == nil {
				streams.resize(window)
			}
		case wire.Stop:
			if !stopped {
				stopped = true
				close(stop)
			}
		}
	}
}

// stop says on the console what hangs, and ends the command.
func (a *agent) stop(pid int) {
	// Tasks in uninterruptible sleep, with their stacks, at all log levels.
	// Best effort.
	_ = os.WriteFile("/proc/sys/kernel/printk", []byte("8"), 0)
	_ = os.WriteFile("/proc/sysrq-trigger", []byte("w"), 0)
	_ = unix.Kill(-pid, unix.SIGTERM)
	time.AfterFunc(grace, func() { _ = unix.Kill(-1, unix.SIGKILL) })
}

// sendOut sends the output directory as an archive.
func (a *agent) sendOut() error {
	if a.order.Out == "" {
		return nil
	}
	tw := tar.NewWriter(a.link.Stream(wire.Out))
	skipped, err := wire.Pack(tw, a.order.Out, "")
	if err == nil && len(skipped) > 0 {
		complain(fmt.Errorf("not brought back, as they are no files: %q", skipped))
	}
	return errors.Join(err, tw.Close())
}

// fullDisks reports file systems of the guest without space, since what a
// program says when it hits that is seldom clear.
func fullDisks() []string {
	var notes []string
	for _, dir := range []string{"/", "/tmp", "/run", "/dev/shm"} {
		var stat unix.Statfs_t
		if err := unix.Statfs(dir, &stat); err != nil || stat.Blocks == 0 {
			continue
		}
		if stat.Bavail*1000 < stat.Blocks {
			size := float64(stat.Blocks) * float64(stat.Bsize) / (1 << 30)
			notes = append(notes, fmt.Sprintf("the guest's %s is full (%.1f GiB)", dir, size))
		}
	}
	return notes
}
