package report

import (
	"math"
	"strconv"
	"time"
)

// three writes a number with three digits that count.
func three(x float64) string {
	if x == 0 {
		return "0"
	}
	decimals := max(0, 2-int(math.Floor(math.Log10(math.Abs(x)))))
	return strconv.FormatFloat(x, 'f', decimals, 64)
}

// times writes a ratio that was measured.
func times(x float64) string { return three(x) + "×" }

// limit writes a ratio that was set.
func limit(x float64) string { return strconv.FormatFloat(x, 'f', -1, 64) + "×" }

// milliseconds writes a time in ns as ms, without the unit.
func milliseconds(ns float64) string { return three(ns / float64(time.Millisecond)) }

// mebibytes writes an amount of memory.
func mebibytes(n float64) string { return three(n/(1<<20)) + " MiB" }
