package guest

import (
	"errors"
	"io"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zfstpl/zfstpl/integration/tools/testbed/internal/wire"
)

// streams are the command's standard streams: three pipes or one terminal.
type streams struct {
	// child are the command's ends.
	child []*os.File
	// stdin is nil where the order has none.
	stdin   *os.File
	outputs []output
	tty     bool
	copies  sync.WaitGroup
	mu      sync.Mutex
	err     error
}

type output struct {
	from *os.File
	kind wire.Kind
}

func (a *agent) openStreams() (*streams, error) {
	if a.order.TTY {
		return openTerminal(a.order.Window)
	}
	return openPipes(a.order.Stdin)
}

func openPipes(withInput bool) (*streams, error) {
	s := &streams{}
	stdin, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	if withInput {
		// Never both: the null device is only there for a command without.
		_ = stdin.Close()
		if stdin, s.stdin, err = os.Pipe(); err != nil {
			return nil, err
		}
	}
	s.child = []*os.File{stdin}
	for _, kind := range []wire.Kind{wire.Stdout, wire.Stderr} {
		read, write, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		s.child = append(s.child, write)
		s.outputs = append(s.outputs, output{read, kind})
	}
	return s, nil
}

func openTerminal(window wire.Window) (*streams, error) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if err := control(master, func(fd int) error { return unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0) }); err != nil {
		return nil, err
	}
	var number int
	err = control(master, func(fd int) (err error) {
		number, err = unix.IoctlGetInt(fd, unix.TIOCGPTN)
		return err
	})
	if err != nil {
		return nil, err
	}
	slave, err := os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	s := &streams{
		child:   []*os.File{slave, slave, slave},
		stdin:   master,
		outputs: []output{{master, wire.Stdout}},
		tty:     true,
	}
	s.resize(window)
	return s, nil
}

// control calls fn with the descriptor, and leaves the file non-blocking.
func control(f *os.File, fn func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = fn(int(fd)) }); err != nil {
		return err
	}
	return inner
}

func (s *streams) attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setsid: true, Setctty: s.tty}
}

// closeChild closes the ends that the command has its own copies of.
func (s *streams) closeChild() {
	for i, file := range s.child {
		if i == 0 || !s.tty {
			_ = file.Close() // the command's copy is what counts
		}
	}
}

// input passes on what the host sent; nothing is its end. A command that does
// not read any more is no error.
func (s *streams) input(p []byte) {
	if s.stdin == nil {
		return
	}
	if len(p) > 0 {
		_, _ = s.stdin.Write(p)
		return
	}
	if s.tty {
		_, _ = s.stdin.Write([]byte{4}) // Ctrl-D
		return
	}
	_ = s.stdin.Close()
}

func (s *streams) resize(window wire.Window) {
	if !s.tty || window.Rows == 0 || window.Cols == 0 {
		return
	}
	// A terminal of the wrong size is no reason to fail.
	_ = control(s.stdin, func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: window.Rows, Col: window.Cols})
	})
}

// copyTo begins to send what the command writes.
func (s *streams) copyTo(link *wire.Writer) {
	for _, out := range s.outputs {
		s.copies.Add(1)
		go func() {
			defer s.copies.Done()
			if err := copyOutput(link.Stream(out.kind), out.from); err != nil {
				s.mu.Lock()
				s.err = errors.Join(s.err, err)
				s.mu.Unlock()
			}
		}()
	}
}

// finish waits until everything is sent that the command wrote. Daemons that
// it left behind may hold its streams open; what they write later is lost.
func (s *streams) finish() error {
	for _, out := range s.outputs {
		if err := out.from.SetReadDeadline(time.Now()); err != nil {
			return err
		}
	}
	s.copies.Wait()
	return s.err
}

func copyOutput(to io.Writer, from *os.File) error {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return err
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF), errors.Is(err, unix.EIO):
			return nil // a terminal without a process says EIO
		case errors.Is(err, os.ErrDeadlineExceeded):
			return drain(to, from, buf)
		default:
			return err
		}
	}
}

// drain sends what is left in the pipe and does not wait for more.
func drain(to io.Writer, from *os.File, buf []byte) error {
	for {
		var n int
		err := control(from, func(fd int) (err error) {
			n, err = unix.Read(fd, buf)
			return err
		})
		if empty := err != nil || n <= 0; empty { // EAGAIN or the end
			return nil
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return err
		}
	}
}
