package snapshotter

import "time"

// The datasets of a batch are destroyed in one txg, for which every concurrent Prepare
// and Commit waits.
const (
	// quietBatch is how many datasets are destroyed in one batch while no operation
	// writes, or when a caller waits for the space. A larger batch would save little:
	// a dataset costs more than its share of a txg.
	quietBatch = 8
	// quietPeriod is how long no operation may have written for that. Otherwise a batch
	// is one dataset.
	quietPeriod = time.Second
)

// MayBatch reports whether batches may be large: no operation writes, or a caller waits
// for the cleanup or, if urgent is set, for the space.
func (r *reaper) mayBatch(urgent bool) bool {
	return urgent || r.cleanup.hasWaiters() || r.activity.isQuiet(quietPeriod, time.Now())
}

// inBatches calls do with batches of order, until do returns an error.
func (r *reaper) inBatches(order []string, urgent bool, do func(batch []string) error) error {
	for len(order) > 0 {
		n := 1
		if r.mayBatch(urgent) {
			n = min(quietBatch, len(order))
		}
		if err := do(order[:n]); err != nil {
			return err
		}
		order = order[n:]
	}
	return nil
}
