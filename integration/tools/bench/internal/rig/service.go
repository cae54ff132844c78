//go:build linux

package rig

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/zfstpl/zfstpl/integration/tied"
)

// patience is how long a service may take to start or to end. Emulated, and
// with thousands of snapshots, minutes are not too long.
const patience = 10 * time.Minute

// Service is a running daemon.
type Service struct {
	name  string
	cmd   *exec.Cmd
	log   string
	ended chan struct{} // closed when the process is gone
	err   error         // how; read after ended
	// Took is the time from its start until it said that it is ready.
	Took time.Duration
}

// PID is the ID of its process.
func (s *Service) PID() int { return s.cmd.Process.Pid }

// start starts a daemon and waits until it says that it is ready, as it would
// tell systemd.
func (r *Rig) start(ctx context.Context, name string, args ...string) (s *Service, err error) {
	socket := r.Path(name + ".notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close(), os.Remove(socket)) }()
	s = &Service{name: name, log: r.Path(name + ".log"), ended: make(chan struct{})}
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the process has its own
	s.cmd = exec.Command(args[0], args[1:]...)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+socket)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	began := time.Now()
	if err := tied.Start(s.cmd); err != nil {
		return nil, err
	}
	go func() {
		s.err = s.cmd.Wait()
		close(s.ended)
	}()
	ready := make(chan error, 1)
	go func() { ready <- readReady(conn) }()
	select {
	case err = <-ready:
		s.Took = time.Since(began)
	case <-s.ended:
		err = fmt.Errorf("it ended at its start: %w", s.err)
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-time.After(patience):
		err = errors.New("it does not say that it is ready")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w\n%s", name, err, s.lastLog()), s.Stop())
	}
	return s, nil
}

func readReady(conn *net.UnixConn) error {
	buffer := make([]byte, 4096)
	for {
		n, err := conn.Read(buffer)
		if err != nil {
			return err
		}
		if strings.Contains("\n"+string(buffer[:n])+"\n", "\nREADY=1\n") {
			return nil
		}
	}
}

// Pid is the process's number.
func (s *Service) Pid() int { return s.cmd.Process.Pid }

// Stop asks the daemon to end, and waits. One that has ended already is well.
func (s *Service) Stop() error {
	select {
	case <-s.ended:
		return nil
	default:
	}
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-s.ended:
	case <-time.After(patience):
		return errors.Join(fmt.Errorf("%s did not end on SIGTERM", s.name), s.cmd.Process.Kill())
	}
	if s.err != nil {
		return fmt.Errorf("%s did not end well: %w", s.name, s.err)
	}
	return nil
}

// lastLog is the end of what the daemon wrote.
func (s *Service) lastLog() string {
	const most = 4 << 10
	content, err := os.ReadFile(s.log)
	if err != nil {
		return err.Error()
	}
	return string(content[max(0, len(content)-most):])
}
