package reaper

import "time"

// The datasets of a batch are destroyed in one txg, for which every concurrent Prepare
// and Commit waits.
const (
	// QuietBatch is how many datasets are destroyed in one batch while no operation
	// writes, or when a caller waits for the space. A larger batch would save little:
	// a dataset costs more than its share of a txg.
	QuietBatch = 8
	// QuietPeriod is how long no operation may have written for that. Otherwise a batch
	// is one dataset.
	QuietPeriod = time.Second
)

// MayBatch reports whether batches may be large: no operation writes, or a caller waits
// for the cleanup or, if urgent is set, for the space.
func (r *Reaper) MayBatch(urgent bool) bool {
	return urgent || r.cleanup.HasWaiters() || r.activity.isQuiet(QuietPeriod, time.Now())
}

// inBatches calls do with batches of order, until do returns an error.
func (r *Reaper) inBatches(order []string, urgent bool, do func(batch []string) error) error {
	for len(order) > 0 {
		n := 1
		if r.MayBatch(urgent) {
			n = min(QuietBatch, len(order))
		}
		if err := do(order[:n]); err != nil {
			return err
		}
		order = order[n:]
	}
	return nil
}
