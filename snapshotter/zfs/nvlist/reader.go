package nvlist

import (
	"bytes"
	"encoding/binary"
)

// Reader reads an encoded message in place. It allocates nothing; the results of Name
// and Bytes are part of the message and valid as long as that is.
//
//	for r.Next() {
//		switch string(r.Name()) {
//		case "guid":
//			guid, _ = r.Uint64()
//		case "children":
//			for r.Enter() { // each list of the pair, one or an array
//				for r.Next() {
//					…
//				}
//				r.Leave()
//			}
//		}
//	}
//	err := r.Err()
//
// Lists that are not entered are skipped, but checked. A Reader is not safe for
// concurrent use.
type Reader struct {
	msg []byte
	pos int // of the next pair

	// The pair that Next found; typ is 0 if there is none.
	typ   Type
	n     int
	name  []byte
	value []byte

	depth int
	// levels[d] is the state of the list that is open at depth d.
	levels [MaxDepth + 1]level
	err    error
}

type level struct {
	lists int  // lists of the current pair that were not read
	ended bool // its end mark was read
}

// NewReader returns a Reader of a message. Bytes after its end are ignored.
func NewReader(msg []byte) *Reader {
	r := &Reader{}
	r.Reset(msg)
	return r
}

// Reset begins to read another message.
func (r *Reader) Reset(msg []byte) {
	*r = Reader{msg: msg}
	le := binary.LittleEndian
	switch {
	case len(msg) < headerSize+endMark:
		r.fail(0, "message is too short")
	case msg[0] != 0:
		r.fail(0, "encoding is not native")
	case msg[1] != littleEndian:
		r.fail(0, "byte order is not little-endian")
	case le.Uint32(msg[4:]) != 0:
		r.fail(4, "unknown version")
	default:
		r.pos = headerSize
	}
}

// Err returns the error that stopped Next or Enter, or nil.
func (r *Reader) Err() error { return r.err }

// Next goes to the next pair of the open list. It returns false at the end and after
// an error.
func (r *Reader) Next() bool {
	open := &r.levels[r.depth]
	for open.lists > 0 && r.err == nil {
		r.Enter()
		r.Leave()
	}
	r.typ = 0
	if r.err != nil || open.ended {
		return false
	}
	rest := r.msg[r.pos:]
	if len(rest) < endMark {
		return r.fail(r.pos, "list has no end")
	}
	size := int(int32(binary.LittleEndian.Uint32(rest)))
	if size == 0 {
		r.pos += endMark
		open.ended = true
		return false
	}
	if size < pairHeader+8 || size > len(rest) || size%8 != 0 {
		return r.fail(r.pos, "bad size of a pair")
	}
	if reason := r.parse(rest[:size]); reason != "" {
		return r.fail(r.pos, reason)
	}
	r.pos += size
	return true
}

// Enter opens the next list of the pair that Next found. It returns false if the pair
// has no further list.
func (r *Reader) Enter() bool {
	open := &r.levels[r.depth]
	if r.err != nil || open.lists == 0 {
		return false
	}
	if r.depth == MaxDepth {
		return r.fail(r.pos, "lists are nested too deeply")
	}
	open.lists--
	r.depth++
	r.levels[r.depth] = level{}
	r.typ = 0
	return true
}

// Leave closes the list that Enter opened. It skips the pairs that were not read.
func (r *Reader) Leave() {
	if r.depth == 0 {
		return
	}
	for r.Next() {
	}
	r.typ = 0
	r.depth--
}

func (r *Reader) fail(offset int, reason string) bool {
	if r.err == nil {
		r.err = &FormatError{Offset: offset, Reason: reason}
	}
	r.typ = 0
	return false
}

// parse reads a pair. It returns what is wrong with it, or "".
func (r *Reader) parse(pair []byte) string {
	le := binary.LittleEndian
	nameSize := int(int16(le.Uint16(pair[4:])))
	n := int(int32(le.Uint32(pair[8:])))
	typ := Type(le.Uint32(pair[12:]))
	if nameSize < 1 || align8(pairHeader+nameSize) > len(pair) {
		return "bad size of a name"
	}
	name := pair[pairHeader : pairHeader+nameSize]
	if bytes.IndexByte(name, 0) != nameSize-1 {
		return "name does not end at its size"
	}
	if n < 0 {
		return "negative number of elements"
	}
	value := pair[align8(pairHeader+nameSize):]
	size, lists, reason := measure(typ, n, value)
	if reason != "" {
		return reason
	}
	if align8(size) != len(value) {
		return "value does not fill its pair"
	}
	r.typ, r.n, r.name, r.value = typ, n, name[:nameSize-1], value[:size]
	r.levels[r.depth].lists = lists
	return ""
}

// measure returns how many bytes of value belong to n elements of a type and how many
// lists follow, or what is wrong.
func measure(typ Type, n int, value []byte) (size, lists int, reason string) {
	switch typ {
	case TypeFlag:
		if n != 0 {
			return 0, 0, "flag with elements"
		}
		return 0, 0, ""
	case TypeString:
		end := bytes.IndexByte(value, 0)
		if n != 1 || end < 0 {
			return 0, 0, "string without an end"
		}
		return end + 1, 0, ""
	case TypeStringArray:
		return measureStrings(n, value)
	case TypeList:
		if n != 1 {
			return 0, 0, "list with a wrong number of elements"
		}
		return measureLists(1, 0, value)
	case TypeListArray:
		return measureLists(n, pointerSize, value)
	}
	width, scalar := typ.width()
	if width == 0 {
		return 0, 0, "unknown type"
	}
	if scalar && n != 1 {
		return 0, 0, "number with a wrong number of elements"
	}
	if n > len(value)/width {
		return 0, 0, "array is longer than its pair"
	}
	size = n * width
	if typ == TypeBool || typ == TypeBoolArray {
		for i := 0; i < size; i += width {
			if binary.LittleEndian.Uint32(value[i:]) > 1 {
				return 0, 0, "boolean that is not 0 or 1"
			}
		}
	}
	return size, 0, ""
}

func measureStrings(n int, value []byte) (int, int, string) {
	if n > len(value)/(pointerSize+1) {
		return 0, 0, "array is longer than its pair"
	}
	size := n * pointerSize
	for range n {
		end := bytes.IndexByte(value[size:], 0)
		if end < 0 {
			return 0, 0, "string without an end"
		}
		size += end + 1
	}
	return size, 0, ""
}

func measureLists(n, pointer int, value []byte) (int, int, string) {
	if n > len(value)/(pointer+listHeader) {
		return 0, 0, "array is longer than its pair"
	}
	headers := n * pointer
	for i := range n {
		if binary.LittleEndian.Uint32(value[headers+i*listHeader:]) != 0 {
			return 0, 0, "unknown version of a list"
		}
	}
	return headers + n*listHeader, n, ""
}

// Name returns the name of the pair that Next found.
func (r *Reader) Name() []byte { return r.name }

// Uint64 returns the value if it has that type.
func (r *Reader) Uint64() (uint64, bool) {
	if r.typ != TypeUint64 {
		return 0, false
	}
	return binary.LittleEndian.Uint64(r.value), true
}

// Int32 returns the value if it has that type.
func (r *Reader) Int32() (int32, bool) {
	if r.typ != TypeInt32 {
		return 0, false
	}
	return int32(binary.LittleEndian.Uint32(r.value)), true
}

// Bool returns the value if it has that type.
func (r *Reader) Bool() (value, ok bool) {
	if r.typ != TypeBool {
		return false, false
	}
	return r.value[0] != 0, true
}

// Bytes returns the bytes of a string, without its NUL, or of an array of bytes. They
// are part of the message.
func (r *Reader) Bytes() ([]byte, bool) {
	switch r.typ {
	case TypeString:
		return r.value[:len(r.value)-1], true
	case TypeByteArray, TypeUint8Array:
		return r.value, true
	}
	return nil, false
}

// Uint64At returns an element of an array of that type.
func (r *Reader) Uint64At(i int) (uint64, bool) {
	if r.typ != TypeUint64Array || i < 0 || i >= r.n {
		return 0, false
	}
	return binary.LittleEndian.Uint64(r.value[8*i:]), true
}
