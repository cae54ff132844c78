package snapshotter

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Callers of a pool that does not return a call ask again and again. What hangs in it
// is bounded, of each class by itself; what needs no pool goes on, and all do when the
// pool is back.
func TestBlockedOperationsAreLimited(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t)
		s.layer("base", "", "")
		s.prepare("web", "base")
		gate := make(chan struct{})
		var changes, looks atomic.Int64
		s.pool.interrupt(func(call string) error {
			switch call {
			case "apply":
				changes.Add(1)
				<-gate
			case "written":
				looks.Add(1)
				<-gate
			}
			return nil
		})
		const callers = maxConcurrent + 20
		for i := range callers {
			ctx, cancel := context.WithTimeout(s.ctx, time.Second)
			go s.sn.Prepare(ctx, fmt.Sprint("x", i), "base") // it hangs
			go s.sn.Usage(ctx, "web")
			time.AfterFunc(time.Minute, cancel)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		assert.EqualValues(t, maxConcurrent, changes.Load())
		assert.LessOrEqual(t, looks.Load(), int64(maxConcurrent))
		ctx, cancel := context.WithTimeout(s.ctx, time.Second)
		defer cancel()
		err := second(s.sn.Prepare(ctx, "more", "base"))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.ErrorContains(t, err, "zpool status")
		began := time.Now()
		s.stat("web")
		s.remove("web", "x1")
		assert.Equal(t, began, time.Now())
		close(gate)
		time.Sleep(time.Minute)
		synctest.Wait()
		s.pool.interrupt(nil)
		s.prepare("more", "base")
		s.requireInvariants()
		assert.Empty(t, s.sn.writes.slots)
		assert.Empty(t, s.sn.queries.slots)
	})
}
