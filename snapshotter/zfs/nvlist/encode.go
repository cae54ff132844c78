package nvlist

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
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
	switch v := v.(type) {
	case Flag:
		return b, TypeFlag, 0, nil
	case bool:
		return appendBools(b, v), TypeBool, 1, nil
	case []bool:
		return appendBools(b, v...), TypeBoolArray, len(v), nil
	case string:
		b, err := appendStrings(b, v)
		return b, TypeString, 1, err
	case []string:
		b, err := appendStrings(append(b, make([]byte, pointerSize*len(v))...), v...)
		return b, TypeStringArray, len(v), err
	case List:
		return append(b, listHeaderBytes...), TypeList, 1, nil
	case []List:
		b = append(b, make([]byte, pointerSize*len(v))...)
		return append(b, bytes.Repeat(listHeaderBytes, len(v))...), TypeListArray, len(v), nil
	case nil:
		return nil, 0, 0, errors.New("nil cannot be encoded")
	default:
		return appendNumbers(b, v)
	}
}

var listHeaderBytes = []byte{4: uniqueNames, listHeader - 1: 0}

func appendBools(b []byte, v ...bool) []byte {
	for _, is := range v {
		n := byte(0)
		if is {
			n = 1
		}
		b = append(b, n, 0, 0, 0)
	}
	return b
}

func appendStrings(b []byte, v ...string) ([]byte, error) {
	for _, s := range v {
		if strings.IndexByte(s, 0) >= 0 {
			return nil, errors.New("string has a NUL")
		}
		b = append(append(b, s...), 0)
	}
	return b, nil
}

// appendNumbers appends a number or an array of numbers.
func appendNumbers(b []byte, v any) ([]byte, Type, int, error) {
	typ := slices.Index(numbers[:], reflect.TypeOf(v))
	if typ < 0 {
		return nil, 0, 0, fmt.Errorf("a %T cannot be encoded", v)
	}
	n := 1
	if value := reflect.ValueOf(v); value.Kind() == reflect.Slice {
		n = value.Len()
	}
	b, err := binary.Append(b, binary.LittleEndian, v)
	return b, Type(typ), n, err
}

// pad appends zeros until the length from start on is a multiple of eight.
func pad(b []byte, start int) []byte {
	n := len(b) - start
	return append(b, make([]byte, align8(n)-n)...)
}
