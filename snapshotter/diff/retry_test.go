package diff

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Each waiting attempt gets the slot, one at a time, as long as none takes too long.
// If one does, the next begins without the slot, and the one after that no earlier
// than if the first had just begun. An attempt whose context ends gets no slot.
func TestSecondAttemptsRunOneAtATime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		limiter := &retryLimiter{slot: make(chan struct{}, 1)}
		at, most := 0, 0
		for range 32 {
			go func() {
				release, err := limiter.acquire(t.Context())
				if !assert.NoError(t, err) {
					return
				}
				at++ // only the attempt with the slot accesses it
				most = max(most, at)
				time.Sleep(retryWait - time.Second)
				at--
				release()
			}()
		}
		time.Sleep(32 * retryWait)
		synctest.Wait()
		assert.Zero(t, at)
		assert.Equal(t, 1, most)
		assert.EqualValues(t, 32, limiter.generation.Load())

		stalled, err := limiter.acquire(t.Context())
		require.NoError(t, err)
		began := time.Now()
		waited := make(chan time.Duration, 3)
		for range 3 {
			go func() {
				_, err := limiter.acquire(t.Context()) // these stall too
				assert.NoError(t, err)
				waited <- time.Since(began)
			}()
		}
		for i := range 3 {
			assert.Equal(t, time.Duration(i+1)*retryWait, <-waited)
		}

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = limiter.acquire(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		stalled()
	})
}
