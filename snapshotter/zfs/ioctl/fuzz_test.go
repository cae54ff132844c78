package ioctl

import (
	"encoding/binary"
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
)

// FuzzObjectRanges asserts that any records give an error or a list that is not longer
// than they are.
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
