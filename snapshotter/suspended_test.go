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

// While the calls to the pool block and callers retry, the number of blocked operations is
// limited, separately for writes and queries. Operations without the pool continue. When
// the pool resumes, all operations continue.
func TestBlockedOperationsAreLimited(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t)
		s.layer("base", "", "")
		s.prepare("web", "base")
		gate := make(chan struct{})
		var writes, queries atomic.Int64
		s.pool.Interrupt(func(call string) error {
			switch call {
			case "apply":
				writes.Add(1)
				<-gate
			case "written":
				queries.Add(1)
				<-gate
			}
			return nil
		})
		const callers = maxConcurrent + 20
		for i := range callers {
			ctx, cancel := context.WithTimeout(s.ctx, time.Second)
			go s.sn.Prepare(ctx, fmt.Sprint("x", i), "base") // blocks
			go s.sn.Usage(ctx, "web")
			time.AfterFunc(time.Minute, cancel)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		assert.EqualValues(t, maxConcurrent, writes.Load())
		assert.LessOrEqual(t, queries.Load(), int64(maxConcurrent))
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
		s.pool.Interrupt(nil)
		s.prepare("more", "base")
		s.requireInvariants()
		assert.Empty(t, s.sn.gate.writes.slots)
		assert.Empty(t, s.sn.gate.queries.slots)
	})
}
