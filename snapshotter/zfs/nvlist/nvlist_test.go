package nvlist

import (
	"bytes"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func everyType() List {
	return List{
		{"flag", Flag{}},
		{"bool", true}, {"bools", []bool{true, false, true}},
		{"byte", byte(200)}, {"bytes", []byte{}},
		{"uint8", Uint8(200)}, {"uint8s", Uint8s{1, 2}},
		{"int8", int8(-3)}, {"int8s", []int8{-1, 2}},
		{"int16", int16(-300)}, {"int16s", []int16{-1, 2, 3}},
		{"uint16", uint16(65535)}, {"uint16s", []uint16{1}},
		{"int32", int32(-70000)}, {"int32s", []int32{-1}},
		{"uint32", uint32(1 << 31)}, {"uint32s", []uint32{1, 1 << 31}},
		{"int64", int64(-1 << 62)}, {"int64s", []int64{-1}},
		{"uint64", uint64(1 << 63)}, {"uint64s", []uint64{1 << 63}},
		{"string", ""}, {"strings", []string{"", "ä", ""}},
		{"list", List{{"inner", List{{"x", "y"}}}}},
		{"lists", []List{nil, {{"x", "y"}}, {{"l", []List{{{"deep", Flag{}}}}}}}},
		{"", "a name may be empty"},
	}
}

func encode(t testing.TB, l List) []byte {
	t.Helper()
	b, err := Append(nil, l)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestEveryTypeRoundTrips(t *testing.T) {
	l := everyType()
	got, err := Decode(encode(t, l))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, l) {
		t.Errorf("got %#v, want %#v", got, l)
	}
}

func TestAppendKeepsDst(t *testing.T) {
	b, err := Append([]byte("abc"), List{{"x", List{{"s", "t"}}}})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b[:3], []byte("abc")) || !bytes.Equal(b[3:], encode(t, List{{"x", List{{"s", "t"}}}})) {
		t.Errorf("got %x", b)
	}
	if b, err := Append([]byte("abc"), List{{"x", nil}}); err == nil || string(b) != "abc" {
		t.Errorf("got %q, %v", b, err)
	}
}

func TestInvalidListsDoNotEncode(t *testing.T) {
	for name, l := range map[string]List{
		"nil":               {{"x", nil}},
		"int":               {{"x", 1}},
		"double":            {{"x", 1.5}},
		"NUL in a name":     {{"a\x00b", Flag{}}},
		"NUL in a string":   {{"x", "a\x00b"}},
		"NUL in an array":   {{"x", []string{"a", "\x00"}}},
		"NUL in a list":     {{"x", List{{"y", "\x00"}}}},
		"NUL in lists":      {{"x", []List{{{"y", "\x00"}}}}},
		"a name too long":   {{strings.Repeat("n", maxNameSize), Flag{}}},
		"nested too deeply": {{"x", nested(MaxDepth)}},
		"a cycle":           func() List { l := List{{"x", nil}}; l[0].Value = l; return l }(),
	} {
		if _, err := Append(nil, l); err == nil {
			t.Errorf("%s: encoded", name)
		}
	}
}

// nested returns a list with n lists inside one another.
func nested(n int) List {
	l := List{{"end", Flag{}}}
	for range n {
		l = List{{"l", l}}
	}
	return l
}

func TestDecodeBoundsTheDepth(t *testing.T) {
	b := encode(t, nested(MaxDepth))
	if _, err := Decode(b); err != nil {
		t.Error(err)
	}
	// One more level, made by hand: the kernel refuses it, and so does Decode.
	deeper := encode(t, List{{"l", List(nil)}})
	inner := b[headerSize:]
	deeper = append(deeper[:len(deeper)-2*endMark], inner...)
	deeper = append(deeper, 0, 0, 0, 0)
	if _, err := Decode(deeper); err == nil {
		t.Error("a list that is nested too deeply was decoded")
	}
}

func TestInvalidMessagesDoNotDecode(t *testing.T) {
	good := encode(t, List{{"abc", "value"}})
	change := func(at int, with ...byte) []byte {
		b := slices.Clone(good)
		copy(b[at:], with)
		return b
	}
	const pair = headerSize
	for name, b := range map[string][]byte{
		"empty":                  nil,
		"a header only":          good[:headerSize],
		"XDR":                    change(0, 1),
		"big-endian":             change(1, 0),
		"a later version":        change(4, 1),
		"no end":                 good[:len(good)-endMark],
		"truncated end":          good[:len(good)-1],
		"size 1":                 change(pair, 1),
		"size negative":          change(pair, 0, 0, 0, 0x80),
		"size beyond":            change(pair, 0x40),
		"size not multiple of 8": change(pair, 0x1c),
		"size without a value":   change(pair, 0x18),
		"size 8":                 change(pair, 8),
		"name size 0":            change(pair+4, 0),
		"name size negative":     change(pair+4, 0xff, 0xff),
		"name size too small":    change(pair+4, 3),
		"name size too large":    change(pair+4, 5),
		"name size beyond":       change(pair+4, 0xff, 0x7f),
		"two strings in one":     change(pair+8, 2),
		"elements negative":      change(pair+8, 0, 0, 0, 0x80),
		"type 0":                 change(pair+12, 0),
		"type double":            change(pair+12, 27),
		"type high-res time":     change(pair+12, 18),
		"type negative":          change(pair+12, 0xff, 0xff, 0xff, 0xff),
		"string without an end":  change(pair+24, 1, 1, 1, 1, 1, 1, 1, 1),
		"flag with a value":      change(pair+8, 0, 0, 0, 0, 1),
		"bool of 2":              change(pair+12, 21, 0, 0, 0, 'a', 'b', 'c', 0, 0, 0, 0, 0, 2, 0, 0, 0),
		"list without a header":  change(pair+12, 19),
		"huge array":             change(pair+8, 0xff, 0xff, 0xff, 0x7f, 16),
		"huge string array":      change(pair+8, 0xff, 0xff, 0xff, 0x7f, 17),
		"huge list array":        change(pair+8, 0xff, 0xff, 0xff, 0x7f, 20),
	} {
		l, err := Decode(b)
		var format *FormatError
		if !errors.As(err, &format) || l != nil {
			t.Errorf("%s: got %v, %v", name, l, err)
		}
	}
}

// Every truncation of a message is an error.
func TestTruncatedMessagesDoNotDecode(t *testing.T) {
	b := encode(t, everyType())
	for n := range b {
		if _, err := Decode(b[:n]); err == nil {
			t.Fatalf("decoded %d bytes of %d", n, len(b))
		}
	}
}

func TestLookupReturnsTheLastPair(t *testing.T) {
	l := List{{"a", uint64(1)}, {"b", "x"}, {"a", uint64(2)}}
	if v, ok := Get[uint64](l, "a"); !ok || v != 2 {
		t.Errorf("got %v, %v, want the last", v, ok)
	}
	if _, ok := Get[int64](l, "a"); ok {
		t.Error("Get returned a value of another type")
	}
	if _, ok := l.Lookup("c"); ok {
		t.Error("Lookup found a missing name")
	}
}

// properties returns a property list as the kernel returns it in a listing.
func properties() List {
	var l List
	for _, name := range []string{"used", "available", "referenced", "guid", "createtxg", "creation",
		"quota", "compressratio", "userrefs", "usedbysnapshots", "usedbydataset", "written"} {
		l = append(l, Pair{name, List{{"value", uint64(len(name))}, {"source", "tank/zfstpl"}}})
	}
	return append(l, Pair{"org.zfstpl:record", List{{"value", strings.Repeat("r", 200)}, {"source", "tank/zfstpl/x"}}})
}

func TestReaderReadsNestedLists(t *testing.T) {
	r := NewReader(encode(t, properties()))
	found := map[string]uint64{}
	var record string
	for r.Next() {
		name := string(r.Name())
		if name == "quota" {
			continue // not entered: skipped
		}
		for r.Enter() {
			for r.Next() {
				if string(r.Name()) != "value" {
					continue
				}
				if n, ok := r.Uint64(); ok {
					found[name] = n
				}
				if b, ok := r.Bytes(); ok {
					record = string(b)
				}
				if name == "guid" {
					break // the rest is skipped by Leave
				}
			}
			r.Leave()
		}
	}
	if err := r.Err(); err != nil {
		t.Fatal(err)
	}
	if len(found) != 11 || found["guid"] != 4 || len(record) != 200 {
		t.Errorf("found %v and %d bytes", found, len(record))
	}
}

func TestReaderReturnsTypedValues(t *testing.T) {
	r := NewReader(encode(t, List{
		{"i32", int32(-5)}, {"i64", int64(-6)}, {"b", true}, {"a", []uint64{4, 5}}, {"n", []List{nil, nil}},
	}))
	r.Next()
	if v, ok := r.Int32(); !ok || v != -5 {
		t.Error(v, ok)
	}
	if _, ok := r.Uint64(); ok {
		t.Error("an int32 read as uint64")
	}
	r.Next()
	if v := r.Value(); v != int64(-6) {
		t.Error(v)
	}
	r.Next()
	if v, ok := r.Bool(); !ok || !v {
		t.Error(v, ok)
	}
	r.Next()
	if v, ok := r.Uint64At(1); !ok || v != 5 || r.n != 2 {
		t.Error(v, ok)
	}
	if _, ok := r.Uint64At(2); ok {
		t.Error("read beyond the array")
	}
	r.Next()
	lists := 0
	for r.Enter() {
		lists++
		r.Leave()
	}
	if lists != 2 || r.Next() || r.Next() || r.Err() != nil {
		t.Error(lists, r.Err())
	}
	r.Leave() // without an Enter
	if r.Next() {
		t.Error("a pair after the end")
	}
}

func TestReaderAllocatesNothing(t *testing.T) {
	b := encode(t, properties())
	r := NewReader(b)
	var sum uint64
	if n := testing.AllocsPerRun(100, func() {
		r.Reset(b)
		for r.Next() {
			if string(r.Name()) == "guid" && r.Enter() {
				for r.Next() {
					v, _ := r.Uint64()
					sum += v
				}
				r.Leave()
			}
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkReader(b *testing.B) {
	msg := encode(b, properties())
	r := NewReader(msg)
	b.ReportAllocs()
	for b.Loop() {
		r.Reset(msg)
		for r.Next() {
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	msg := encode(b, properties())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(msg); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	l := properties()
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if buf, err = Append(buf[:0], l); err != nil {
			b.Fatal(err)
		}
	}
}
