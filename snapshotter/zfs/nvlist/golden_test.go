package nvlist

import (
	"bytes"
	"encoding/hex"
	"reflect"
	"strings"
	"testing"
)

// The vectors are written by hand from the format in doc.go, one row for each
// field; none is the output of an encoder. The pool tests of package ioctl prove
// on a real pool that the kernel agrees.
const header = "00 01 00 00" + // native, little-endian
	"00000000" + // version
	"01000000" // names are unique

var golden = []struct {
	name string
	list List
	hex  string
}{
	{"empty", nil, header + "00000000"},

	// The name's size counts its NUL: 2. 16+2 rounds up to 24.
	{"flag", List{{"a", Flag{}}}, header +
		"18000000 0200 0000 00000000 01000000" + // 24 bytes, 0 elements, type 1
		"61 00 000000000000" +
		"00000000"},

	// 16+7 rounds up to 24: a name of six letters needs one byte of padding.
	{"bool", List{{"waited", true}}, header +
		"20000000 0700 0000 01000000 15000000" + // 32 bytes, type 21
		"776169746564 00 00" +
		"01000000 00000000" +
		"00000000"},

	// 16+8 is 24 already.
	{"int32", List{{"defaul7", int32(-2)}}, header +
		"20000000 0800 0000 01000000 05000000" +
		"64656661756c37 00" +
		"feffffff 00000000" +
		"00000000"},

	{"uint64", List{{"guid", uint64(0x1122334455667788)}}, header +
		"20000000 0500 0000 01000000 08000000" +
		"67756964 00 000000" +
		"8877665544332211" +
		"00000000"},

	// The NUL counts: 8 bytes of value for a string of seven letters …
	{"string", List{{"origin", "p/a@ext"}}, header +
		"20000000 0700 0000 01000000 09000000" +
		"6f726967696e 00 00" +
		"702f6140657874 00" +
		"00000000"},

	// … and 16 for eight.
	{"longer string", List{{"origin", "p/ab@ext"}}, header +
		"28000000 0700 0000 01000000 09000000" +
		"6f726967696e 00 00" +
		"702f616240657874 0000000000000000" +
		"00000000"},

	// The strings are adjacent; only their end is padded: 16 + 2 + 3 = 21.
	{"strings", List{{"argv", []string{"a", "bc"}}}, header +
		"30000000 0500 0000 02000000 11000000" + // 48 = 24 + 24, 2 elements, type 17
		"61726776 00 000000" +
		"0000000000000000 0000000000000000" +
		"61 00 6263 00 000000" +
		"00000000"},

	{"int32s", List{{"n", []int32{1, 2, -1}}}, header +
		"28000000 0200 0000 03000000 0d000000" +
		"6e 00 000000000000" +
		"01000000 02000000 ffffffff 00000000" +
		"00000000"},

	{"uint64s", List{{"v", []uint64{7, 8}}}, header +
		"28000000 0200 0000 02000000 10000000" +
		"76 00 000000000000" +
		"0700000000000000 0800000000000000" +
		"00000000"},

	{"bytes", List{{"k", []byte{1, 2, 3}}, {"u", Uint8s{4}}}, header +
		"20000000 0200 0000 03000000 0a000000" +
		"6b 00 000000000000" +
		"010203 0000000000" +
		"20000000 0200 0000 01000000 1a000000" +
		"75 00 000000000000" +
		"04 00000000000000" +
		"00000000"},

	// The size of a list's pair includes its header only. The pairs of the list
	// follow with an end mark of their own, so that the next pair begins at an
	// offset that is not a multiple of eight.
	{"list", List{{"props", List{{"a:b", "x"}}}, {"z", Flag{}}}, header +
		"30000000 0600 0000 01000000 13000000" + // 48 = 24 + 24, type 19
		"70726f7073 00 0000" +
		"00000000 01000000 0000000000000000 00000000 00000000" +
		("20000000 0400 0000 01000000 09000000" +
			"613a62 00 00000000" +
			"78 00 000000000000" +
			"00000000") +
		"18000000 0200 0000 00000000 01000000" +
		"7a 00 000000000000" +
		"00000000"},

	// All pointers, then all headers, then the contents in turn.
	{"lists", List{{"c", []List{{{"x", Flag{}}}, nil}}}, header +
		"58000000 0200 0000 02000000 14000000" + // 88 = 24 + 2*8 + 2*24
		"63 00 000000000000" +
		"0000000000000000 0000000000000000" +
		"00000000 01000000 0000000000000000 00000000 00000000" +
		"00000000 01000000 0000000000000000 00000000 00000000" +
		("18000000 0200 0000 00000000 01000000" +
			"78 00 000000000000" +
			"00000000") +
		"00000000" +
		"00000000"},

	{"empty arrays", List{{"s", []string{}}, {"l", []List{}}}, header +
		"18000000 0200 0000 00000000 11000000" +
		"73 00 000000000000" +
		"18000000 0200 0000 00000000 14000000" +
		"6c 00 000000000000" +
		"00000000"},
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestEncodingMatchesTheVectors(t *testing.T) {
	for _, g := range golden {
		t.Run(g.name, func(t *testing.T) {
			want := unhex(t, g.hex)
			got, err := Append(nil, g.list)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("encoded\n%x, want\n%x", got, want)
			}
			list, err := Decode(want)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(list, g.list) {
				t.Errorf("decoded %#v, want %#v", list, g.list)
			}
		})
	}
}
