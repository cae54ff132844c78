package ledger

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
)

// Recorder takes what a machine says and writes whole notes to a ledger: the
// last may have been on its way when the power went. It remembers what a person
// wants to know.
type Recorder struct {
	Plan, Verified  string
	Asked, Returned int
	Err             error // the first; nothing is written after it

	to      io.Writer
	partial []byte
}

// NewRecorder returns a recorder that writes to a ledger.
func NewRecorder(to io.Writer) *Recorder { return &Recorder{to: to} }

func (r *Recorder) Write(p []byte) (int, error) {
	r.partial = append(r.partial, p...)
	for r.Err == nil {
		line, rest, whole := bytes.Cut(r.partial, []byte("\n"))
		if !whole {
			break
		}
		r.Err = r.take(line)
		r.partial = append([]byte(nil), rest...)
	}
	return len(p), r.Err
}

func (r *Recorder) take(line []byte) error {
	var n Note
	if err := json.Unmarshal(line, &n); err != nil {
		return fmt.Errorf("no note: %.200q: %w", line, err)
	}
	switch n.Note {
	case Begins:
		r.Plan = n.Text
	case Verified:
		r.Verified = n.Text
	case Asks:
		r.Asked++
	case Returned:
		r.Returned++
	}
	_, err := fmt.Fprintf(r.to, "%s\n", line)
	return err
}
