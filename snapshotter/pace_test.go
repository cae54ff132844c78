package snapshotter

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

// While somebody is at work datasets go one by one; else, and where somebody waits
// for the room, many at a time.
func TestPace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := begin(t)
		order := make([]string, 2*quietBatch+1)
		for i := range order {
			order[i] = fmt.Sprint(i)
		}
		batches := func(ctx context.Context) (sizes []int) {
			var done []string
			assert.NoError(t, s.sn.inBatches(ctx, order, func(batch []string) error {
				sizes, done = append(sizes, len(batch)), append(done, batch...)
				return nil
			}))
			assert.Equal(t, order, done)
			return sizes
		}
		many := []int{quietBatch, quietBatch, 1}
		assert.Len(t, batches(s.ctx), len(order), "a daemon that has begun just now")
		time.Sleep(quietPeriod)
		assert.Equal(t, many, batches(s.ctx), "nobody was ever at work")
		s.prepare("web", "")
		assert.Len(t, batches(s.ctx), len(order), "just now somebody was")
		assert.Equal(t, many, batches(withUrgent(s.ctx)), "somebody waits")
		time.Sleep(quietPeriod)
		assert.Equal(t, many, batches(s.ctx))
		end := s.sn.Begin(s.ctx)
		time.Sleep(quietPeriod)
		assert.Len(t, batches(s.ctx), len(order), "somebody unpacks")
		end()
	})
}
