package reaper

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

// While an operation writes, batches are single datasets. Otherwise, and for a reclaim,
// they are large.
func TestBatchesAreSmallBesideOperations(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := New(nil, Config{})
		r.activity.begin()() // the start
		order := make([]string, 2*QuietBatch+1)
		for i := range order {
			order[i] = fmt.Sprint(i)
		}
		batches := func(urgent bool) (sizes []int) {
			var done []string
			assert.NoError(t, r.inBatches(order, urgent, func(batch []string) error {
				sizes, done = append(sizes, len(batch)), append(done, batch...)
				return nil
			}))
			assert.Equal(t, order, done)
			return sizes
		}
		many := []int{QuietBatch, QuietBatch, 1}
		assert.Len(t, batches(false), len(order), "just started")
		time.Sleep(QuietPeriod)
		assert.Equal(t, many, batches(false), "no operation yet")
		r.activity.begin()()
		assert.Len(t, batches(false), len(order), "just after an operation")
		assert.Equal(t, many, batches(true), "a caller waits")
		time.Sleep(QuietPeriod)
		assert.Equal(t, many, batches(false))
		end := r.activity.begin()
		time.Sleep(QuietPeriod)
		assert.Len(t, batches(false), len(order), "a layer is being unpacked")
		end()
	})
}
