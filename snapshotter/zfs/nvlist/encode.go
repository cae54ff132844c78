package nvlist

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"
)

// Append encodes l as a message at the end of dst. It fails, and returns dst
// unchanged, for a value or name that cannot be encoded, for lists that are nested
// more than MaxDepth deep, and for a message of more than 2 GiB.
func Append(dst []byte, l List) ([]byte, error) {
	start := len(dst)
	out := append(dst, 0, littleEndian, 0, 0, 0, 0, 0, 0, uniqueNames, 0, 0, 0)
	out, err := appendPairs(out, l, 0)
	if err != nil {
		return dst, err
	}
	if len(out)-start > math.MaxInt32 {
		return dst, fmt.Errorf("nvlist: message of %d bytes is too long", len(out)-start)
	}
	return out, nil
}

func appendPairs(b []byte, l List, depth int) ([]byte, error) {
	if depth > MaxDepth {
		return nil, fmt.Errorf("nvlist: lists are nested more than %d deep", MaxDepth)
	}
	for _, p := range l {
		var err error
		if b, err = appendPair(b, p, depth); err != nil {
			return nil, err
		}
	}
	return append(b, 0, 0, 0, 0), nil
}

func appendPair(b []byte, p Pair, depth int) ([]byte, error) {
	if len(p.Name) >= maxNameSize || strings.IndexByte(p.Name, 0) >= 0 {
		return nil, fmt.Errorf("nvlist: name %.40q is too long or has a NUL", p.Name)
	}
	start := len(b)
	b = append(b, make([]byte, pairHeader)...)
	b = append(b, p.Name...)
	b = pad(append(b, 0), start)
	b, typ, n, err := appendValue(b, p.Value)
	if err != nil {
		return nil, fmt.Errorf("nvlist: %.40q: %w", p.Name, err)
	}
	b = pad(b, start)
	size := len(b) - start
	if size > math.MaxInt32 {
		return nil, fmt.Errorf("nvlist: %.40q is too long", p.Name)
	}
	le := binary.LittleEndian
	le.PutUint32(b[start:], uint32(size))
	le.PutUint16(b[start+4:], uint16(len(p.Name)+1))
	le.PutUint32(b[start+8:], uint32(n))
	le.PutUint32(b[start+12:], uint32(typ))
	return appendEmbedded(b, p.Value, depth)
}

// appendEmbedded appends the pairs of the lists in v.
func appendEmbedded(b []byte, v any, depth int) ([]byte, error) {
	switch v := v.(type) {
	case List:
		return appendPairs(b, v, depth+1)
	case []List:
		for _, l := range v {
			var err error
			if b, err = appendPairs(b, l, depth+1); err != nil {
				return nil, err
			}
		}
	}
	return b, nil
}

// appendValue appends a value's own bytes and returns its type and number of elements.
func appendValue(b []byte, v any) ([]byte, Type, int, error) {
	le := binary.LittleEndian
	switch v := v.(type) {
	case Flag:
		return b, TypeFlag, 0, nil
	case bool:
		return appendNumbers(b, TypeBool, v), TypeBool, 1, nil
	case byte:
		return append(b, v), TypeByte, 1, nil
	case Uint8:
		return append(b, byte(v)), TypeUint8, 1, nil
	case int8:
		return append(b, byte(v)), TypeInt8, 1, nil
	case int16:
		return le.AppendUint16(b, uint16(v)), TypeInt16, 1, nil
	case uint16:
		return le.AppendUint16(b, v), TypeUint16, 1, nil
	case int32:
		return le.AppendUint32(b, uint32(v)), TypeInt32, 1, nil
	case uint32:
		return le.AppendUint32(b, v), TypeUint32, 1, nil
	case int64:
		return le.AppendUint64(b, uint64(v)), TypeInt64, 1, nil
	case uint64:
		return le.AppendUint64(b, v), TypeUint64, 1, nil
	case string:
		if strings.IndexByte(v, 0) >= 0 {
			return nil, 0, 0, errNUL
		}
		return append(append(b, v...), 0), TypeString, 1, nil
	case List:
		return append(b, listHeaderBytes...), TypeList, 1, nil
	default:
		return appendArray(b, v)
	}
}

var (
	errNUL          = fmt.Errorf("string has a NUL")
	listHeaderBytes = []byte{4: uniqueNames, listHeader - 1: 0}
)

func appendArray(b []byte, v any) ([]byte, Type, int, error) {
	switch v := v.(type) {
	case []byte:
		return append(b, v...), TypeByteArray, len(v), nil
	case Uint8s:
		return append(b, v...), TypeUint8Array, len(v), nil
	case []bool:
		return appendNumbers(b, TypeBoolArray, v...), TypeBoolArray, len(v), nil
	case []int8:
		return appendNumbers(b, TypeInt8Array, v...), TypeInt8Array, len(v), nil
	case []int16:
		return appendNumbers(b, TypeInt16Array, v...), TypeInt16Array, len(v), nil
	case []uint16:
		return appendNumbers(b, TypeUint16Array, v...), TypeUint16Array, len(v), nil
	case []int32:
		return appendNumbers(b, TypeInt32Array, v...), TypeInt32Array, len(v), nil
	case []uint32:
		return appendNumbers(b, TypeUint32Array, v...), TypeUint32Array, len(v), nil
	case []int64:
		return appendNumbers(b, TypeInt64Array, v...), TypeInt64Array, len(v), nil
	case []uint64:
		return appendNumbers(b, TypeUint64Array, v...), TypeUint64Array, len(v), nil
	case []string:
		b = append(b, make([]byte, pointerSize*len(v))...)
		for _, s := range v {
			if strings.IndexByte(s, 0) >= 0 {
				return nil, 0, 0, errNUL
			}
			b = append(append(b, s...), 0)
		}
		return b, TypeStringArray, len(v), nil
	case []List:
		b = append(b, make([]byte, pointerSize*len(v))...)
		for range v {
			b = append(b, listHeaderBytes...)
		}
		return b, TypeListArray, len(v), nil
	default:
		return nil, 0, 0, fmt.Errorf("a %T cannot be encoded", v)
	}
}

func appendNumbers[T number](b []byte, typ Type, v ...T) []byte {
	width := shapes[typ].width
	for _, n := range v {
		u := toBits(n)
		for range width {
			b = append(b, byte(u))
			u >>= 8
		}
	}
	return b
}

// pad appends zeros until the length from start on is a multiple of eight.
func pad(b []byte, start int) []byte {
	n := len(b) - start
	return append(b, make([]byte, align8(n)-n)...)
}
