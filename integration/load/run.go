package load

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/harness"
	"github.com/zfstpl/zfstpl/integration/model"
	"github.com/zfstpl/zfstpl/integration/testpool"
)

const workers = 32

// Run performs so many operations on sn, which serves base. Then it removes everything and
// asserts that nothing is left.
func Run(t *testing.T, base *testpool.Base, sn snapshots.Snapshotter, seed uint64, operations int) {
	t.Helper()
	t.Logf("seed %d", seed)
	began := time.Now()
	var wait sync.WaitGroup
	var busy atomic.Int64
	for id := range workers {
		w := &worker{
			sn: sn, namespace: fmt.Sprintf("w%02d", id), r: rand.New(rand.NewPCG(seed, uint64(id))),
			model: model.New(model.Config{}), adopted: make(map[string]string), busy: &busy,
		}
		wait.Go(func() {
			for n := range (operations + workers - 1) / workers {
				if what, err := w.step(); err != nil {
					t.Errorf("worker %s, operation %d, %s: %v (seed %d)", w.namespace, n, what, err, seed)
					return
				}
			}
			assert.NoError(t, w.compareAll(), "worker %s at its end (seed %d)", w.namespace, seed)
		})
	}
	wait.Wait()
	took := time.Since(began)
	t.Logf("%d operations by %d workers in %s, %.0f a second, %d mounts tried again; %d snapshots and %d datasets at the end",
		operations, workers, took.Round(time.Second/10), float64(operations)/took.Seconds(), busy.Load(),
		len(harness.Everything(t, sn)), len(base.Names(t)))
	harness.RemoveAll(t, sn)
	require.NoError(t, sn.(snapshots.Cleaner).Cleanup(context.Background()))
	require.Equal(t, []string{"", "/runtime", "/storage", "/storage/empty"}, base.Names(t), "seed %d", seed)
}
