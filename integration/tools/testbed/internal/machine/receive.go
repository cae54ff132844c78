package machine

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/zfstpl/zfstpl/integration/tools/testbed/internal/guest"
	"github.com/zfstpl/zfstpl/integration/tools/testbed/internal/wire"
)

// maxSilence is far above the guest's heartbeat: what is silent for so long
// does not schedule processes any more.
const maxSilence = 2 * time.Minute

var errSilent = errors.New("the guest hangs: it has not said a word for " + maxSilence.String())

// receiver takes what the guest sends, and reports what happened by closing or
// filling its channels.
type receiver struct {
	config *Config
	link   *os.File
	stdout io.Writer
	stderr io.Writer
	unpack *unpacking

	hello chan wire.Greeting // one, when the command starts
	found chan string        // one, the line that KillOn matched
	exit  chan wire.Outcome  // one, the last thing of importance
	done  chan struct{}      // closed when nothing more will come
	stop  chan struct{}      // filled by the session, to ask the guest to stop
	once  sync.Once
	err   error // why it ended, valid when done is closed
}

func newReceiver(config *Config, link *os.File) *receiver {
	r := &receiver{
		config: config,
		link:   link,
		unpack: newUnpacking(config.Out),
		hello:  make(chan wire.Greeting, 1),
		found:  make(chan string, 1),
		exit:   make(chan wire.Outcome, 1),
		done:   make(chan struct{}),
		stop:   make(chan struct{}, 1),
	}
	found := func(line string) {
		r.once.Do(func() { r.found <- line })
	}
	r.stdout = &lineMatcher{to: config.Stdout, pattern: config.KillOn, found: found}
	r.stderr = &lineMatcher{to: config.Stderr, pattern: config.KillOn, found: found}
	return r
}

func (r *receiver) receive() {
	defer close(r.done)
	frames := wire.NewReader(r.link)
	// Only silence while we wait counts, not the time that our own standard
	// output takes. The boot has a limit of its own.
	limit := time.Time{}
	for {
		if r.err = r.link.SetReadDeadline(limit); r.err != nil {
			return
		}
		frame, err := frames.Next()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = errSilent
		}
		if err == nil {
			err = r.take(frame)
		}
		if err != nil {
			r.err = err
			return
		}
		limit = time.Now().Add(maxSilence)
	}
}

func (r *receiver) take(frame wire.Frame) error {
	switch frame.Kind {
	case wire.Hello:
		var greeting wire.Greeting
		if err := frame.Decode(&greeting); err != nil {
			return err
		}
		return offer(r.hello, greeting)
	case wire.Stdout:
		_, err := r.stdout.Write(frame.Payload)
		return err
	case wire.Stderr:
		_, err := r.stderr.Write(frame.Payload)
		return err
	case wire.Out:
		return r.unpack.write(frame.Payload)
	case wire.Exit:
		var outcome wire.Outcome
		if err := frame.Decode(&outcome); err != nil {
			return err
		}
		return offer(r.exit, outcome)
	case wire.Heartbeat:
		return nil
	default:
		return wire.ErrProtocol
	}
}

// offer sends what may come only once.
func offer[T any](to chan T, message T) error {
	select {
	case to <- message:
		return nil
	default:
		return wire.ErrProtocol
	}
}

// unpacking unpacks the output directory while it arrives.
type unpacking struct {
	dir  string
	pipe *io.PipeWriter
	done chan error
}

func newUnpacking(dir string) *unpacking {
	return &unpacking{dir: dir}
}

func (u *unpacking) write(p []byte) error {
	if u.dir == "" {
		return wire.ErrProtocol
	}
	if u.pipe == nil {
		var read *io.PipeReader
		read, u.pipe = io.Pipe()
		u.done = make(chan error, 1)
		go func() {
			err := unpackInto(u.dir, read)
			// The rest is thrown away; the error is returned at the end.
			_, _ = io.Copy(io.Discard, read)
			u.done <- err
		}()
	}
	_, err := u.pipe.Write(p)
	return err
}

func unpackInto(dir string, r io.Reader) (err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	return wire.Unpack(r, root)
}

// close waits until everything is unpacked. Where the guest died, that what
// came is not all is no news.
func (u *unpacking) close(died bool) error {
	if u.pipe == nil {
		return nil
	}
	_ = u.pipe.Close() // never fails
	u.pipe = nil
	if err := <-u.done; err != nil && (!died || !errors.Is(err, io.ErrUnexpectedEOF)) {
		return fmt.Errorf("bring back %s: %w", guest.OutDir, err)
	}
	return nil
}
