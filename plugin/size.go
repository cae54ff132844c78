package plugin

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
)

// Size is a number of bytes with a text form such as "10GiB".
type Size struct{ Bytes uint64 }

var (
	sizeText  = regexp.MustCompile(`^([0-9]+)([KMGT]iB)?$`)
	sizeUnits = []string{"", "KiB", "MiB", "GiB", "TiB"} // each is 1024 times the one before
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
	shift := 10 * slices.Index(sizeUnits, m[2])
	n, err := strconv.ParseUint(m[1], 10, 64)
	if err != nil || n > math.MaxInt64>>shift {
		return fmt.Errorf("size %q is too large", text)
	}
	*s = Size{n << shift}
	return nil
}

// MarshalText is the reverse of UnmarshalText.
func (s Size) MarshalText() ([]byte, error) {
	n, unit := s.Bytes, 0
	for n > 0 && n%1024 == 0 && unit < len(sizeUnits)-1 {
		n, unit = n/1024, unit+1
	}
	return fmt.Appendf(nil, "%d%s", n, sizeUnits[unit]), nil
}
