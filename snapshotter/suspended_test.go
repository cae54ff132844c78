package snapshotter

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/zfs/zfsfake"
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
		writes, queries := s.pool.Count(zfsfake.Before(zfsfake.Apply)), s.pool.Count(zfsfake.Before(zfsfake.Written))
		end := s.pool.FailAt(zfsfake.Before(zfsfake.Apply, zfsfake.Written), zfsfake.Wait(gate))
		const callers = maxConcurrent + 20
		for i := range callers {
			ctx, cancel := context.WithTimeout(s.ctx, time.Second)
			go s.sn.Prepare(ctx, fmt.Sprint("x", i), "base") // blocks
			go s.sn.Usage(ctx, "web")
			time.AfterFunc(time.Minute, cancel)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		assert.Equal(t, maxConcurrent, writes())
		assert.LessOrEqual(t, queries(), maxConcurrent)
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
		end()
		s.prepare("more", "base")
		s.requireInvariants()
		assert.Empty(t, s.sn.gate.writes)
		assert.Empty(t, s.sn.gate.queries)
	})
}
