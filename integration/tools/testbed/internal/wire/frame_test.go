package wire

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestFramesArriveAsSent(t *testing.T) {
	var stream bytes.Buffer
	w := NewWriter(&stream)
	long := strings.Repeat("x", 3*MaxPayload+7)
	if err := errors.Join(w.Send(Stdin, nil), w.SendJSON(Resize, Window{Rows: 3, Cols: 4})); err != nil {
		t.Fatal(err)
	}
	if n, err := io.WriteString(w.Stream(Stdout), long); n != len(long) || err != nil {
		t.Fatal(n, err)
	}
	r := NewReader(iotest.OneByteReader(&stream))
	if frame, err := r.Next(); err != nil || frame.Kind != Stdin || len(frame.Payload) != 0 {
		t.Fatal(frame, err)
	}
	frame, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	var window Window
	if err := frame.Decode(&window); err != nil || window != (Window{Rows: 3, Cols: 4}) {
		t.Fatal(window, err)
	}
	var got strings.Builder
	for got.Len() < len(long) {
		frame, err := r.Next()
		if err != nil || frame.Kind != Stdout {
			t.Fatal(frame.Kind, err)
		}
		got.Write(frame.Payload)
	}
	if got.String() != long {
		t.Error("the stream is another one")
	}
	if _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Error("after the last frame:", err)
	}
}

func TestBrokenFramesAreErrors(t *testing.T) {
	for name, test := range map[string]struct {
		stream string
		want   error
	}{
		"cut in the header":  {"\x40\x00\x00", io.ErrUnexpectedEOF},
		"cut in the payload": {"\x41\x00\x00\x00\x05abc", io.ErrUnexpectedEOF},
		"no payload at all":  {"\x41\x00\x00\x00\x05", io.ErrUnexpectedEOF},
		"huge":               {"\x41\xff\xff\xff\xff", ErrProtocol},
		"one byte too long":  {"\x41\x00\x01\x00\x01", ErrProtocol},
		"kind zero":          {"\x00\x00\x00\x00\x00", ErrProtocol},
		"unknown kind":       {"\x7f\x00\x00\x00\x00", ErrProtocol},
		"text":               {"login: root", ErrProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := NewReader(strings.NewReader(test.stream)).Next(); !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}

func TestPayloadThatIsNoJSON(t *testing.T) {
	var outcome Outcome
	if err := (Frame{Exit, []byte("{")}).Decode(&outcome); !errors.Is(err, ErrProtocol) {
		t.Error(err)
	}
}

func TestSendRefusesTooMuch(t *testing.T) {
	if err := NewWriter(io.Discard).Send(Stdout, make([]byte, MaxPayload+1)); !errors.Is(err, ErrProtocol) {
		t.Error(err)
	}
}

func FuzzReader(f *testing.F) {
	f.Add([]byte("\x40\x00\x00\x00\x02{}\x44\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		r := NewReader(bytes.NewReader(stream))
		for {
			frame, err := r.Next()
			if err != nil {
				return
			}
			if len(frame.Payload) > MaxPayload || !frame.Kind.known() {
				t.Fatal(frame.Kind, len(frame.Payload))
			}
		}
	})
}
