package ioctl

import (
	"encoding/binary"
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
)

// Whatever the records of changed objects are, there is an answer, no longer than
// they are, or an error.
func FuzzObjectRanges(f *testing.F) {
	for _, numbers := range [][]uint64{{2, 3, 7, 4, 0, math.MaxUint64}, {1, 0, 0}, {3, 0, 1}, {2, 3}} {
		var b []byte
		for _, n := range numbers {
			b = binary.LittleEndian.AppendUint64(b, n)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := objectRanges(b)
		if err != nil {
			assert.Nil(t, list)
			return
		}
		assert.LessOrEqual(t, len(list)*24, len(b))
	})
}
