package nvlist

import (
	"encoding/binary"
	"reflect"
	"slices"
	"strings"
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
		return r.value[0] != 0
	case TypeBoolArray:
		bools := make([]bool, r.n)
		for i := range bools {
			bools[i] = r.value[i*boolSize] != 0
		}
		return bools
	case TypeString:
		return string(r.value[:len(r.value)-1])
	case TypeStringArray:
		text := string(r.value[r.n*pointerSize:])
		return strings.SplitN(text, "\x00", r.n+1)[:r.n:r.n]
	case TypeList:
		if !r.Enter() {
			return List(nil)
		}
		defer r.Leave()
		return r.list()
	case TypeListArray:
		lists := []List{}
		for r.Enter() {
			lists = append(lists, r.list())
			r.Leave()
		}
		return slices.Clip(lists)
	default:
		return r.numbers()
	}
}

// numbers decodes a number or an array of numbers.
func (r *Reader) numbers() any {
	typ := numbers[r.typ]
	if typ == nil {
		return nil
	}
	v := reflect.New(typ)
	if typ.Kind() == reflect.Slice {
		v.Elem().Set(reflect.MakeSlice(typ, r.n, r.n))
	}
	_, _ = binary.Decode(r.value, binary.LittleEndian, v.Interface()) // measure has checked the size
	return v.Elem().Interface()
}
