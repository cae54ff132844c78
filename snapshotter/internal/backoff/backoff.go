// Package backoff has the pauses between attempts that fail for the same reason: of the
// journal to write, of a cleanup to destroy a dataset, and of the background cleanup.
package backoff

import "time"

// The first and the longest pause. A pause is as long as 10 minutes only if the reason is
// likely to need an administrator.
const (
	Min = time.Second
	Max = 10 * time.Minute
)

// Next returns the pause that follows a pause; after zero that is Min.
func Next(pause time.Duration) time.Duration { return min(max(2*pause, Min), Max) }
