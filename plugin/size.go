package plugin

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
)

// Size is a number of bytes with a text form such as "10GiB".
type Size struct{ Bytes uint64 }

var (
	sizeText  = regexp.MustCompile(`^([0-9]+)([KMGT]iB)?$`)
	sizeUnits = []struct {
		name  string
		bytes uint64
	}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"", 1}}
)

// UnmarshalText parses a whole number with one of the units KiB, MiB, GiB, TiB, or
// without a unit for bytes. Empty text is zero.
func (s *Size) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*s = Size{}
		return nil
	}
	m := sizeText.FindStringSubmatch(string(text))
	if m == nil {
		return fmt.Errorf("%q is not a size: use a value such as \"10GiB\", \"512MiB\" or \"0\"", text)
	}
	for _, unit := range sizeUnits {
		if unit.name != m[2] {
			continue
		}
		n, err := strconv.ParseUint(m[1], 10, 64)
		if err != nil || n > math.MaxInt64/unit.bytes {
			return fmt.Errorf("size %q is too large", text)
		}
		*s = Size{n * unit.bytes}
	}
	return nil
}

// MarshalText is the reverse of UnmarshalText.
func (s Size) MarshalText() ([]byte, error) {
	for _, unit := range sizeUnits {
		if s.Bytes > 0 && s.Bytes%unit.bytes == 0 {
			return []byte(strconv.FormatUint(s.Bytes/unit.bytes, 10) + unit.name), nil
		}
	}
	return []byte("0"), nil
}
