package nvlist

import "encoding/binary"

// number is a value of a fixed number of bytes.
type number interface {
	bool | int8 | int16 | uint16 | int32 | uint32 | int64 | uint64
}

func toBits[T number](n T) uint64 {
	switch n := any(n).(type) {
	case bool:
		if n {
			return 1
		}
		return 0
	case int8:
		return uint64(n)
	case int16:
		return uint64(n)
	case uint16:
		return uint64(n)
	case int32:
		return uint64(n)
	case uint32:
		return uint64(n)
	case int64:
		return uint64(n)
	case uint64:
		return n
	}
	panic("unreachable")
}

func fromBits[T number](u uint64) T {
	var n T
	switch p := any(&n).(type) {
	case *bool:
		*p = u != 0
	case *int8:
		*p = int8(u)
	case *int16:
		*p = int16(u)
	case *uint16:
		*p = uint16(u)
	case *int32:
		*p = int32(u)
	case *uint32:
		*p = uint32(u)
	case *int64:
		*p = int64(u)
	case *uint64:
		*p = u
	}
	return n
}

// bits reads the element of that width at the beginning of b.
func bits(b []byte, width int) uint64 {
	le := binary.LittleEndian
	switch width {
	case 1:
		return uint64(b[0])
	case 2:
		return uint64(le.Uint16(b))
	case 4:
		return uint64(le.Uint32(b))
	default:
		return le.Uint64(b)
	}
}
