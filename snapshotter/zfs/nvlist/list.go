package nvlist

import (
	"fmt"
	"reflect"
)

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
	Uint8s = []Uint8
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

// numbers has the Go types of numbers and of arrays of numbers.
var numbers = [...]reflect.Type{
	TypeByte:        reflect.TypeFor[byte](),
	TypeByteArray:   reflect.TypeFor[[]byte](),
	TypeInt8:        reflect.TypeFor[int8](),
	TypeInt8Array:   reflect.TypeFor[[]int8](),
	TypeUint8:       reflect.TypeFor[Uint8](),
	TypeUint8Array:  reflect.TypeFor[[]Uint8](),
	TypeInt16:       reflect.TypeFor[int16](),
	TypeInt16Array:  reflect.TypeFor[[]int16](),
	TypeUint16:      reflect.TypeFor[uint16](),
	TypeUint16Array: reflect.TypeFor[[]uint16](),
	TypeInt32:       reflect.TypeFor[int32](),
	TypeInt32Array:  reflect.TypeFor[[]int32](),
	TypeUint32:      reflect.TypeFor[uint32](),
	TypeUint32Array: reflect.TypeFor[[]uint32](),
	TypeInt64:       reflect.TypeFor[int64](),
	TypeInt64Array:  reflect.TypeFor[[]int64](),
	TypeUint64:      reflect.TypeFor[uint64](),
	TypeUint64Array: reflect.TypeFor[[]uint64](),
	TypeBool:        reflect.TypeFor[bool](),
	TypeBoolArray:   reflect.TypeFor[[]bool](),
}

// boolSize is the size of a boolean in bytes.
const boolSize = 4

// width returns the size of an element of a type of numbers in bytes, or 0 for any
// other type. A pair of a scalar type has exactly one element.
func (typ Type) width() (width int, scalar bool) {
	if typ < 0 || int(typ) >= len(numbers) || numbers[typ] == nil {
		return 0, false
	}
	element, scalar := numbers[typ], true
	if element.Kind() == reflect.Slice {
		element, scalar = element.Elem(), false
	}
	if element.Kind() == reflect.Bool {
		return boolSize, scalar
	}
	return int(element.Size()), scalar
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
