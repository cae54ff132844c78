package result

import (
	"math"
	"slices"
)

// Summary is what is typical of samples.
type Summary struct {
	Count  int
	Median float64
	// P99 is the sample that 99 of 100 are not above: of fewer than a hundred
	// samples, the greatest.
	P99 float64
}

// Summarize returns the summary of at least one value.
func Summarize(values []float64) Summary {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	median := sorted[n/2]
	if n%2 == 0 {
		median = (sorted[n/2-1] + sorted[n/2]) / 2
	}
	rank := int(math.Ceil(0.99 * float64(n)))
	return Summary{Count: n, Median: median, P99: sorted[rank-1]}
}
