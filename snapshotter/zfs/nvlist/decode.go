package nvlist

import (
	"bytes"
	"slices"
)

// Decode returns the list of a message. Bytes after its end are ignored. The result
// shares no memory with msg. An empty list is nil; an empty array is not.
func Decode(msg []byte) (List, error) {
	r := NewReader(msg)
	l := r.list()
	if r.err != nil {
		return nil, r.err
	}
	return l, nil
}

// list reads the rest of the open list.
func (r *Reader) list() List {
	var l List
	for r.Next() {
		name := string(r.name)
		l = append(l, Pair{Name: name, Value: r.Value()})
	}
	return l
}

// Value decodes the value of the pair that Next found; its lists then count as read.
// It returns nil if there is no pair, and an incomplete list after an error: see Err.
func (r *Reader) Value() any {
	switch r.typ {
	case TypeFlag:
		return Flag{}
	case TypeBool:
		return bits(r.value, 4) != 0
	case TypeByte:
		return r.value[0]
	case TypeUint8:
		return Uint8(r.value[0])
	case TypeInt8:
		return int8(r.value[0])
	case TypeInt16:
		return int16(bits(r.value, 2))
	case TypeUint16:
		return uint16(bits(r.value, 2))
	case TypeInt32:
		return int32(bits(r.value, 4))
	case TypeUint32:
		return uint32(bits(r.value, 4))
	case TypeInt64:
		return int64(bits(r.value, 8))
	case TypeUint64:
		return bits(r.value, 8)
	case TypeString:
		return string(r.value[:len(r.value)-1])
	case TypeList:
		if r.Enter() {
			l := r.list()
			r.Leave()
			return l
		}
		return List(nil)
	}
	return r.array()
}

func (r *Reader) array() any {
	switch r.typ {
	case TypeByteArray:
		return append([]byte{}, r.value...)
	case TypeUint8Array:
		return append(Uint8s{}, r.value...)
	case TypeBoolArray:
		return numbers[bool](r)
	case TypeInt8Array:
		return numbers[int8](r)
	case TypeInt16Array:
		return numbers[int16](r)
	case TypeUint16Array:
		return numbers[uint16](r)
	case TypeInt32Array:
		return numbers[int32](r)
	case TypeUint32Array:
		return numbers[uint32](r)
	case TypeInt64Array:
		return numbers[int64](r)
	case TypeUint64Array:
		return numbers[uint64](r)
	case TypeStringArray:
		s := make([]string, 0, r.n)
		for rest := r.value[r.n*pointerSize:]; len(s) < r.n; {
			end := bytes.IndexByte(rest, 0)
			s = append(s, string(rest[:end]))
			rest = rest[end+1:]
		}
		return s
	case TypeListArray:
		lists := []List{}
		for r.Enter() {
			lists = append(lists, r.list())
			r.Leave()
		}
		return slices.Clip(lists)
	}
	return nil
}

func numbers[T number](r *Reader) []T {
	width := shapes[r.typ].width
	s := make([]T, r.n)
	for i := range s {
		s[i] = fromBits[T](bits(r.value[i*width:], width))
	}
	return s
}
