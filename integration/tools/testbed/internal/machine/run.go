package machine

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/zfstpl/zfstpl/integration/tools/testbed/internal/guest"
	"github.com/zfstpl/zfstpl/integration/tools/testbed/internal/proc"
	"github.com/zfstpl/zfstpl/integration/tools/testbed/internal/wire"
)

// Run boots a guest, has it do what the configuration says, and returns when
// QEMU has ended. Every way to end that is not the command's own is an error.
func Run(ctx context.Context, config *Config) (result Result, err error) {
	dir, err := os.MkdirTemp(config.Scratch, "machine-")
	if err != nil {
		return Result{}, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	initramfs := filepath.Join(dir, "initramfs")
	if err := writeInitramfs(initramfs, config.Agent, config.Modules); err != nil {
		return Result{}, fmt.Errorf("initramfs: %w", err)
	}
	input := ""
	if len(config.Put) > 0 {
		input = filepath.Join(dir, "input.tar")
		if err := packInput(input, config.Put, config.Say); err != nil {
			return Result{}, fmt.Errorf("pack the files to put in: %w", err)
		}
	}
	s := &session{config: config, console: newConsole(config.Console), complaints: newConsole(nil)}
	if err := s.start(dir, initramfs, input); err != nil {
		return Result{}, err
	}
	defer func() { err = errors.Join(err, s.link.Close()) }()
	return s.supervise(ctx)
}

// packInput writes the archive that the guest unpacks, as a disk image.
func packInput(path string, files []Put, say func(string, ...any)) (err error) {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	archive := tar.NewWriter(file)
	for _, put := range files {
		skipped, err := wire.Pack(archive, put.Host, put.Guest)
		if err != nil {
			return err
		}
		if len(skipped) > 0 {
			say("not put in, as they are no files: %q", skipped)
		}
	}
	return archive.Close()
}

// session is one running guest.
type session struct {
	config     *Config
	console    *console
	complaints *console
	qemu       *proc.Process
	link       *os.File
	receiver   *receiver
	began      time.Time
}

func (s *session) start(dir, initramfs, input string) error {
	ours, theirs, err := socketPair()
	if err != nil {
		return err
	}
	s.link, s.began = ours, time.Now()
	s.qemu, err = proc.Start(s.config.command(dir, initramfs, input, theirs, s.console, s.complaints))
	// QEMU has its own copy; with ours open, its end would not be seen.
	err = errors.Join(err, theirs.Close())
	if err != nil {
		return errors.Join(fmt.Errorf("start QEMU: %w", err), ours.Close())
	}
	order := s.config.Order
	if s.config.Out != "" {
		order.Out = guest.OutDir
	}
	writer := wire.NewWriter(ours)
	s.receiver = newReceiver(s.config, ours)
	go s.receiver.receive()
	// The guest reads it when it gets that far; until then it stays in the
	// socket. If it cannot be written, QEMU is gone, which is seen below.
	go func() {
		if writer.SendJSON(wire.Start, order) == nil {
			s.forward(writer)
		}
	}()
	return nil
}

// forward sends what the user types and how the terminal's size changes. It
// ends with the link.
func (s *session) forward(writer *wire.Writer) {
	if s.config.Order.Stdin {
		go func() {
			buf := make([]byte, 4<<10)
			for {
				n, err := s.config.Input.Read(buf)
				if n > 0 && writer.Send(wire.Stdin, buf[:n]) != nil {
					return
				}
				if err != nil {
					// The end of the input, however it came about.
					_ = writer.Send(wire.Stdin, nil)
					return
				}
			}
		}()
	}
	for {
		select {
		case window := <-s.config.Windows:
			if writer.SendJSON(wire.Resize, window) != nil {
				return
			}
		case <-s.receiver.stop:
			if writer.Send(wire.Stop, nil) != nil {
				return
			}
		case <-s.qemu.Done():
			return
		}
	}
}

// fail kills the guest and says why, with what the console has to say.
func (s *session) fail(lines int, reason error) error {
	reason = errors.Join(reason, s.qemu.Kill())
	s.drain()
	s.sayIfFull()
	tail, why := s.console.Panic()
	if why == "" {
		tail = s.console.Tail(lines)
	}
	return &GuestError{
		Reason:  errors.Join(reason, s.receiver.unpack.close(true)),
		Console: tail,
		QEMU:    withoutNoise(s.complaints.Tail(tailLines)),
	}
}

// drain waits until everything is passed on that the guest sent; but not for
// ever, should our own output be stuck.
func (s *session) drain() {
	select {
	case <-s.receiver.done:
	case <-time.After(stopGrace):
	}
}
