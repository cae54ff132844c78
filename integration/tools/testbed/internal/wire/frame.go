package wire

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Kind says what a frame carries.
type Kind byte

// From the host to the guest.
const (
	// Start carries an Order; it is the first frame and comes once.
	Start Kind = iota + 1
	// Stdin carries input of the command; an empty one is its end.
	Stdin
	// Resize carries a Window.
	Resize
	// Stop asks the guest to end the command, and to say on the console what
	// it was waiting for.
	Stop
)

// From the guest to the host.
const (
	// Hello carries a Greeting, sent just before the command starts.
	Hello Kind = iota + 64
	Stdout
	Stderr
	// Out carries a piece of the tar archive of the output directory.
	Out
	// Exit carries an Outcome; nothing but Heartbeat follows it.
	Exit
	// Heartbeat says that the guest still schedules processes.
	Heartbeat
)

// MaxPayload limits a frame, so that a broken length cannot make the reader
// allocate without bound. It fits the buffers of virtio-serial.
const MaxPayload = 64 << 10

const headerSize = 5

// ErrProtocol is returned for a frame that no peer of this version sends.
var ErrProtocol = errors.New("not a testbed frame")

func (k Kind) known() bool {
	return k >= Start && k <= Stop || k >= Hello && k <= Heartbeat
}

// Frame is one message. Its payload is valid until the next one is read.
type Frame struct {
	Kind    Kind
	Payload []byte
}

// Decode unmarshals the payload of a frame that carries JSON.
func (f Frame) Decode(into any) error {
	if err := json.Unmarshal(f.Payload, into); err != nil {
		return fmt.Errorf("frame of kind %d: %w: %w", f.Kind, ErrProtocol, err)
	}
	return nil
}

// Writer writes frames; any number of goroutines may share one.
type Writer struct {
	mu  sync.Mutex
	w   io.Writer
	buf []byte
}

// NewWriter returns a Writer to w.
func NewWriter(w io.Writer) *Writer {
	return &Writer{w: w}
}

// Send writes one frame with at most MaxPayload bytes.
func (w *Writer) Send(kind Kind, payload []byte) error {
	if len(payload) > MaxPayload {
		return fmt.Errorf("%w: %d bytes", ErrProtocol, len(payload))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf = append(w.buf[:0], byte(kind))
	w.buf = binary.BigEndian.AppendUint32(w.buf, uint32(len(payload)))
	w.buf = append(w.buf, payload...)
	_, err := w.w.Write(w.buf)
	return err
}

// SendJSON writes one frame that carries message.
func (w *Writer) SendJSON(kind Kind, message any) error {
	payload, err := json.Marshal(message)
	if err != nil {
		return err
	}
	return w.Send(kind, payload)
}

// Stream returns a writer whose bytes become frames of one kind.
func (w *Writer) Stream(kind Kind) io.Writer {
	return stream{w, kind}
}

type stream struct {
	w    *Writer
	kind Kind
}

func (s stream) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		n := min(len(p), MaxPayload)
		if err := s.w.Send(s.kind, p[:n]); err != nil {
			return written, err
		}
		written += n
		p = p[n:]
	}
	return written, nil
}

// Reader reads frames.
type Reader struct {
	r   *bufio.Reader
	buf []byte
}

// NewReader returns a Reader from r.
func NewReader(r io.Reader) *Reader {
	return &Reader{r: bufio.NewReaderSize(r, MaxPayload+headerSize)}
}

// Next returns the next frame. It returns io.EOF between frames only;
// io.ErrUnexpectedEOF means that the peer died in the middle of one.
func (r *Reader) Next() (Frame, error) {
	var header [headerSize]byte
	if _, err := io.ReadFull(r.r, header[:]); err != nil {
		return Frame{}, err
	}
	kind, size := Kind(header[0]), binary.BigEndian.Uint32(header[1:])
	if !kind.known() || size > MaxPayload {
		return Frame{}, fmt.Errorf("%w: kind %d, %d bytes", ErrProtocol, kind, size)
	}
	if cap(r.buf) < int(size) {
		r.buf = make([]byte, MaxPayload)
	}
	payload := r.buf[:size]
	if _, err := io.ReadFull(r.r, payload); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return Frame{}, err
	}
	return Frame{Kind: kind, Payload: payload}, nil
}
