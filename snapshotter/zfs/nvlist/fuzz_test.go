package nvlist

import (
	"reflect"
	"runtime"
	"testing"
)

// FuzzDecode asserts that any bytes decode to an error or to a list that encodes and
// decodes to itself, that the Reader agrees, and that memory is bounded by a small
// multiple of the input.
func FuzzDecode(f *testing.F) {
	for _, g := range golden {
		f.Add(unhex(f, g.hex))
	}
	f.Add(encode(f, everyType()))
	f.Add(encode(f, properties()))
	f.Add(encode(f, nested(MaxDepth)))
	f.Fuzz(func(t *testing.T, msg []byte) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		list, err := Decode(msg)
		runtime.ReadMemStats(&after)
		if got, limit := after.TotalAlloc-before.TotalAlloc, uint64(64*len(msg)+1<<16); got > limit {
			t.Fatalf("%d bytes took %d bytes of memory", len(msg), got)
		}

		r := NewReader(msg)
		for r.Next() {
		}
		if (r.Err() == nil) != (err == nil) {
			t.Fatalf("Decode returned %v, Reader %v", err, r.Err())
		}
		if err != nil {
			return
		}
		encoded, err := Append(nil, list)
		if err != nil {
			t.Fatalf("%#v does not encode: %v", list, err)
		}
		second, err := Decode(encoded)
		if err != nil {
			t.Fatalf("%#v does not decode again: %v", list, err)
		}
		if !reflect.DeepEqual(list, second) {
			t.Fatalf("%#v became %#v", list, second)
		}
	})
}
