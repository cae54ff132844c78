package ledger

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/zfstpl/zfstpl/integration/model"
)

// What a note says.
const (
	Begins   = "begins"   // a machine has started; an operation without a result until then never gets one
	Asks     = "asks"     // the load is about to ask for an operation
	Returned = "returned" // the operation has returned
	Sees     = "sees"     // a name has this snapshot, or none
	Settled  = "settled"  // names that were not seen since Begins have no snapshot
	Verified = "verified" // the machine has checked everything; Text has numbers
	Cut      = "cut"      // the power must be cut now
)

// A Note is one line of a ledger.
type Note struct {
	Note string `json:"note"`
	At   string `json:"at,omitempty"` // since the writer was made
	ID   int    `json:"id,omitempty"` // ties a result to what was asked
	// Op is the operation that is asked for.
	Op model.Op `json:"op,omitempty"`
	// Key is the snapshot that the operation creates, changes, removes or commits.
	Key string `json:"key,omitempty"`
	// Name is the snapshot that a Commit creates. A Prepare may create it instead of Key, if
	// the layer exists.
	Name string `json:"name,omitempty"`
	// Snap is the record that Key will have or, after a commit, Name. Its content is the hash
	// of the whole tree, which only committed snapshots have.
	Snap *model.Snapshot `json:"snap,omitempty"`
	// Layer is the chain ID a commit is to have the content of, if it is a layer.
	Layer string `json:"layer,omitempty"`
	// Extraction is set for the Prepare of an extraction, which a power cut may take back.
	Extraction bool `json:"extraction,omitempty"`
	// Failed is why a result was an error, a word for each kind.
	Failed string `json:"failed,omitempty"`
	Text   string `json:"text,omitempty"`
}

// Exists is the kind of error of a prepare of a layer that is there.
const Exists = "already exists"

// Writer writes notes, each in one piece.
type Writer struct {
	mu    sync.Mutex
	to    io.Writer
	began time.Time
	ids   int
}

// NewWriter returns a writer of notes.
func NewWriter(to io.Writer) *Writer { return &Writer{to: to, began: time.Now()} }

// Say writes a note that has no result.
func (w *Writer) Say(n Note) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.write(n)
}

// Ask writes what is about to be asked for and returns the number that the
// result's note is to have.
func (w *Writer) Ask(n Note) (id int, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ids++
	n.Note, n.ID = Asks, w.ids
	return n.ID, w.write(n)
}

func (w *Writer) write(n Note) error {
	n.At = time.Since(w.began).Round(time.Millisecond).String()
	line, err := json.Marshal(n)
	if err != nil {
		return err
	}
	_, err = w.to.Write(append(line, '\n'))
	return err
}

// Read hands every note in r to take. The last line may be cut off: the power
// went while it was on its way.
func Read(r io.Reader, take func(Note) error) error {
	lines := bufio.NewReader(r)
	for number := 1; ; number++ {
		line, err := lines.ReadString('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		var n Note
		if err := json.Unmarshal([]byte(line), &n); err != nil {
			return fmt.Errorf("line %d of the ledger: %w", number, err)
		}
		if err := take(n); err != nil {
			return fmt.Errorf("line %d of the ledger: %w", number, err)
		}
	}
}
