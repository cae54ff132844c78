package nvlist

import "fmt"

// List is a list in the order of its encoding. ZFS keeps names unique: of a name that
// occurs twice, the last pair counts, also in Lookup and Get.
type List []Pair

// Pair is a name and its value. The value's Go type decides the encoded type:
//
//	Flag                       present or absent, no value
//	bool                       boolean value
//	int8 int16 int32 int64     the signed numbers
//	uint16 uint32 uint64       the unsigned numbers
//	byte                       "byte"; Uint8 is "uint8"
//	string                     string, without NUL
//	[]bool []int8 …            arrays of the numbers above
//	[]byte                     "byte array"; Uint8s is "uint8 array"
//	[]string                   string array
//	List, []List               list, list array
//
// Any other type, including nil, cannot be encoded. Doubles and high-resolution
// times, which ZFS does not exchange, cannot be encoded or decoded.
type Pair struct {
	Name  string
	Value any
}

type (
	// Flag is the value of a pair without a value.
	Flag struct{}
	// Uint8 is the number that ZFS distinguishes from a byte.
	Uint8 uint8
	// Uint8s is the array that ZFS distinguishes from a byte array.
	Uint8s []byte
)

// Lookup returns the value of a name, and whether the list has it.
func (l List) Lookup(name string) (any, bool) {
	for i := len(l) - 1; i >= 0; i-- {
		if l[i].Name == name {
			return l[i].Value, true
		}
	}
	return nil, false
}

// Get returns the value of a name if the list has it with type T.
func Get[T any](l List, name string) (T, bool) {
	v, _ := l.Lookup(name)
	t, ok := v.(T)
	return t, ok
}

// Type is the encoded type of a value.
type Type int32

// The types that can be decoded.
const (
	TypeFlag        Type = 1
	TypeByte        Type = 2
	TypeInt16       Type = 3
	TypeUint16      Type = 4
	TypeInt32       Type = 5
	TypeUint32      Type = 6
	TypeInt64       Type = 7
	TypeUint64      Type = 8
	TypeString      Type = 9
	TypeByteArray   Type = 10
	TypeInt16Array  Type = 11
	TypeUint16Array Type = 12
	TypeInt32Array  Type = 13
	TypeUint32Array Type = 14
	TypeInt64Array  Type = 15
	TypeUint64Array Type = 16
	TypeStringArray Type = 17
	TypeList        Type = 19
	TypeListArray   Type = 20
	TypeBool        Type = 21
	TypeInt8        Type = 22
	TypeUint8       Type = 23
	TypeBoolArray   Type = 24
	TypeInt8Array   Type = 25
	TypeUint8Array  Type = 26
)

// shapes has the width of an element of each type in bytes, and whether a pair has
// exactly one.
var shapes = [...]struct {
	width  int
	scalar bool
}{
	TypeByte:        {1, true},
	TypeInt16:       {2, true},
	TypeUint16:      {2, true},
	TypeInt32:       {4, true},
	TypeUint32:      {4, true},
	TypeInt64:       {8, true},
	TypeUint64:      {8, true},
	TypeByteArray:   {1, false},
	TypeInt16Array:  {2, false},
	TypeUint16Array: {2, false},
	TypeInt32Array:  {4, false},
	TypeUint32Array: {4, false},
	TypeInt64Array:  {8, false},
	TypeUint64Array: {8, false},
	TypeBool:        {4, true},
	TypeInt8:        {1, true},
	TypeUint8:       {1, true},
	TypeBoolArray:   {4, false},
	TypeInt8Array:   {1, false},
	TypeUint8Array:  {1, false},
}

const (
	headerSize   = 12 // of a message
	pairHeader   = 16 // of a pair, up to its name
	listHeader   = 24 // of an embedded list
	pointerSize  = 8
	endMark      = 4
	uniqueNames  = 1
	littleEndian = 1
	maxNameSize  = 1<<15 - 1 // with the NUL
)

// MaxDepth is how deep lists can be nested. It is the kernel's limit.
const MaxDepth = 20

func align8(n int) int { return (n + 7) &^ 7 }

// FormatError is the error of bytes that cannot be decoded.
type FormatError struct {
	Offset int // of the invalid pair or header
	Reason string
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("nvlist: %s at byte %d", e.Reason, e.Offset)
}
