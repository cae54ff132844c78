package recordlog

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

const (
	magic   = "zfstplog"
	version = 1

	headerSize = len(magic) + 4 + 8 + 8 + 4
	frameSize  = 4 + 8 + 4 + 4

	// maxBody limits the memory that one entry takes. An update of the largest record has
	// two records of 240 KiB, see record.properties; JSON can quote each byte in six.
	maxBody = 4 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// ID identifies a log: the time of its creation, in microseconds.
type ID uint64

func (id ID) String() string { return fmt.Sprintf("%016x", uint64(id)) }

// Entry is one atomic change: user properties that are set or removed, in this order.
type Entry struct {
	Seq uint64 // of consecutive entries, consecutive numbers
	Ops []zfs.Op
}

// change is the form of one op in an entry's body.
type change struct {
	Dataset  string  `json:"d"` // relative to the base
	Property string  `json:"p"`
	Value    *string `json:"v,omitempty"` // none: the property is removed
}

// encodeHeader returns the header of a file whose first entry has the number after start.
func encodeHeader(id ID, start uint64) []byte {
	b := append(make([]byte, 0, headerSize), magic...)
	b = binary.BigEndian.AppendUint32(b, version)
	b = binary.BigEndian.AppendUint64(b, uint64(id))
	b = binary.BigEndian.AppendUint64(b, start)
	return binary.BigEndian.AppendUint32(b, checksum(b))
}

func decodeHeader(b []byte) (id ID, start uint64, err error) {
	switch {
	case len(b) < headerSize:
		return 0, 0, fmt.Errorf("%w: the header has %d of %d bytes", ErrDamaged, len(b), headerSize)
	case string(b[:len(magic)]) != magic:
		return 0, 0, fmt.Errorf("%w: the file is not a log", ErrDamaged)
	case checksum(b[:headerSize-4]) != binary.BigEndian.Uint32(b[headerSize-4:]):
		return 0, 0, fmt.Errorf("%w: the header has a wrong checksum", ErrDamaged)
	}
	b = b[len(magic):]
	if v := binary.BigEndian.Uint32(b); v != version {
		return 0, 0, fmt.Errorf("the log has version %d, this zfstpl supports %d: use a newer zfstpl", v, version)
	}
	return ID(binary.BigEndian.Uint64(b[4:])), binary.BigEndian.Uint64(b[12:]), nil
}

// appendEntry appends an entry to b. Its ops are Sets and Inherits of datasets in base.
func appendEntry(b []byte, base layout.Base, e Entry) ([]byte, error) {
	changes := make([]change, len(e.Ops))
	for i, op := range e.Ops {
		name, below := strings.CutPrefix(op.Dataset(), base.String()+"/")
		property, value, ok := op.Property()
		if !below || !ok {
			return b, fmt.Errorf("%q is not a change of a property below %s", op.Dataset(), base)
		}
		changes[i] = change{name, property, value}
	}
	body, err := json.Marshal(changes)
	if err != nil {
		return b, err
	}
	if len(body) > maxBody {
		return b, fmt.Errorf("an entry of %d bytes is larger than %d", len(body), maxBody)
	}
	frame := binary.BigEndian.AppendUint32(make([]byte, 0, frameSize), uint32(len(body)))
	frame = binary.BigEndian.AppendUint64(frame, e.Seq)
	frame = binary.BigEndian.AppendUint32(frame, checksum(body))
	frame = binary.BigEndian.AppendUint32(frame, checksum(frame))
	return append(append(b, frame...), body...), nil
}

// errTorn reports that a file ends inside an entry.
var errTorn = errors.New("the file ends inside an entry")

// decodeEntry decodes the entry at the beginning of b and returns its size.
func decodeEntry(b []byte, base layout.Base) (e Entry, size int, err error) {
	if len(b) < frameSize {
		return e, 0, errTorn
	}
	if checksum(b[:frameSize-4]) != binary.BigEndian.Uint32(b[frameSize-4:]) {
		return e, 0, fmt.Errorf("%w: the header of an entry has a wrong checksum", ErrDamaged)
	}
	length := binary.BigEndian.Uint32(b)
	e.Seq = binary.BigEndian.Uint64(b[4:])
	if length > maxBody {
		return e, 0, fmt.Errorf("%w: entry %d has %d bytes", ErrDamaged, e.Seq, length)
	}
	size = frameSize + int(length)
	if len(b) < size {
		return e, 0, errTorn
	}
	body := b[frameSize:size]
	if checksum(body) != binary.BigEndian.Uint32(b[12:]) {
		return e, 0, fmt.Errorf("%w: entry %d has a wrong checksum", ErrDamaged, e.Seq)
	}
	var changes []change
	if err := json.Unmarshal(body, &changes); err != nil {
		return e, 0, fmt.Errorf("%w: entry %d: %w", ErrDamaged, e.Seq, err)
	}
	for _, c := range changes {
		dataset := base.String() + "/" + c.Dataset
		if c.Value == nil {
			e.Ops = append(e.Ops, zfs.Inherit(dataset, c.Property))
		} else {
			e.Ops = append(e.Ops, zfs.Set(dataset, c.Property, *c.Value))
		}
	}
	if err := zfs.CheckOps(e.Ops); err != nil {
		return e, 0, fmt.Errorf("%w: entry %d: %w", ErrDamaged, e.Seq, err)
	}
	return e, size, nil
}
