package snapshotter

import (
	"context"
	"time"
)

// All that is destroyed at a time is freed in one txg, which everybody who prepares
// or commits meanwhile waits for.
const (
	// quietBatch is how many datasets are destroyed at a time when nobody is at
	// work, or somebody waits for the room. More would save little: what one costs
	// is more than its share of a txg.
	quietBatch = 8
	// quietFor is how long nobody may have been at work for that. While somebody is
	// they go one by one.
	quietPeriod = time.Second
)

// mayHurry tells whether much may be done at a time: nobody is at work, or somebody
// waits for it.
func (s *Snapshotter) mayBatch(ctx context.Context) bool {
	return isUrgent(ctx) || s.cleanup.hasWaiters() || s.activity.isQuiet(quietPeriod, time.Now())
}

// paced cuts what is to be destroyed into batches, as long as do has no error.
func (s *Snapshotter) inBatches(ctx context.Context, order []string, do func(batch []string) error) error {
	for len(order) > 0 {
		n := 1
		if s.mayBatch(ctx) {
			n = min(quietBatch, len(order))
		}
		if err := do(order[:n]); err != nil {
			return err
		}
		order = order[n:]
	}
	return nil
}
