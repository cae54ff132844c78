package space

import (
	"fmt"

	"github.com/docker/go-units"
)

// Limit is a bound on the space of a base: its pool, or a quota on the base, on a
// dataset in it or on an ancestor.
type Limit struct {
	Of      string `json:"of"`   // such as "pool tank" or "the quota of tank/containers"
	Used    uint64 `json:"used"` // bytes
	Total   uint64 `json:"total"`
	Freeing uint64 `json:"freeing"` // bytes of Used that ZFS is freeing in the background
	// Pool reports whether the limit is the pool's. ZFS refuses a write with ENOSPC
	// where a pool is full, and with EDQUOT where a quota is.
	Pool bool `json:"-"`
	// Blocked is the reason why destroying datasets frees nothing here, or "".
	Blocked string `json:"blocked,omitempty"`
}

// Percent returns how full the limit is: 100 or more where nothing is left. Bytes that
// are being freed do not count as used.
func (l Limit) Percent() int { return percent(l.load(), l.Total) }

// Over reports whether more than pressure percent of the limit are used.
func (l Limit) Over(pressure int) bool { return l.Total > 0 && l.load() > share(l.Total, pressure) }

func (l Limit) load() uint64 { return l.Used - min(l.Used, l.Freeing) }

func (l Limit) String() string {
	return fmt.Sprintf("%s is %d%% full (%s of %s)", l.Of, l.Percent(), Size(l.load()), Size(l.Total))
}

// Fullest returns the limit with the highest percentage.
func Fullest(limits []Limit) (fullest Limit) {
	for _, l := range limits {
		if fullest.Total == 0 || l.Percent() > fullest.Percent() {
			fullest = l
		}
	}
	return fullest
}

// Tightest returns the limit with the fewest bytes left. Of several, it prefers one
// that is not blocked.
func Tightest(limits []Limit) (tightest Limit) {
	for i, l := range limits {
		freer := l.left() == tightest.left() && l.Blocked == "" && tightest.Blocked != ""
		if i == 0 || l.left() < tightest.left() || freer {
			tightest = l
		}
	}
	return tightest
}

func (l Limit) left() uint64 { return l.Total - min(l.Total, l.Used) }

func percent(part, whole uint64) int {
	if whole == 0 {
		return 0
	}
	return int(float64(part) / float64(whole) * 100)
}

// share returns percent percent of whole. It uses floating point, because the product
// of two integers may overflow.
func share(whole uint64, percent int) uint64 {
	return uint64(float64(whole) * float64(percent) / 100)
}

// Size is a number of bytes that prints with a binary unit, such as 1.5MiB.
type Size uint64

func (s Size) String() string { return units.BytesSize(float64(s)) }
