package space

import (
	"fmt"

	"github.com/docker/go-units"
)

// Limit is a bound on what a base can hold: its pool, or a quota on it or on a
// dataset that it lies in.
type Limit struct {
	Of      string `json:"of"`   // such as "pool tank" or "the quota of tank/containers"
	Used    uint64 `json:"used"` // bytes
	Total   uint64 `json:"total"`
	Freeing uint64 `json:"freeing"` // of Used, what comes back by itself
	// Pool tells that it is a pool's, which ZFS refuses for another reason than a quota's.
	Pool bool `json:"-"`
	// Stuck says why nothing comes back of what is destroyed, where that is so.
	Blocked string `json:"blocked,omitempty"`
}

// Percent answers how full it is, 100 and more where nothing is left. What is
// being freed does not count.
func (l Limit) Percent() int { return percent(l.load(), l.Total) }

// Over tells whether it is fuller than so many percent.
func (l Limit) Over(pressure int) bool { return l.Total > 0 && l.load() > share(l.Total, pressure) }

func (l Limit) load() uint64 { return l.Used - min(l.Used, l.Freeing) }

func (l Limit) String() string {
	return fmt.Sprintf("%s is %d%% full (%s of %s)", l.Of, l.Percent(), Size(l.load()), Size(l.Total))
}

// Fullest answers the limit that is nearest to its end.
func Fullest(limits []Limit) (fullest Limit) {
	for _, l := range limits {
		if fullest.Total == 0 || l.Percent() > fullest.Percent() {
			fullest = l
		}
	}
	return fullest
}

// Tightest answers the limit that leaves the fewest bytes; of several one of which
// something comes back.
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

// share is so many percent of whole, without the product that may not fit.
func share(whole uint64, percent int) uint64 {
	return uint64(float64(whole) * float64(percent) / 100)
}

// Size is a number of bytes that is written as a person reads it.
type Size uint64

func (s Size) String() string { return units.BytesSize(float64(s)) }
