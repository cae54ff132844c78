package integration

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/harness"
	"github.com/zfstpl/zfstpl/integration/testpool"
	"github.com/zfstpl/zfstpl/snapshotter"
)

const loadWorkers = 32

var loadSeed = flag.Uint64("load.seed", 0, "repeat the load that was printed with this `SEED`; 0 chooses one")

// Not parallel to other tests: what the load leaves behind is counted in the
// whole process.
func TestRandomLoadKeepsTheModelInProcess(t *testing.T) {
	base := pool.NewBase(t)
	before := takeCensus(t, os.Getpid())
	sn, err := snapshotter.New(context.Background(), base.Client, snapshotter.Config{Base: base.Base, ReuseLayers: snapshotter.ReuseSkip})
	require.NoError(t, err)
	runLoad(t, base, sn)
	require.NoError(t, sn.Close())
	before.requireSame(t)
	requireGoroutines(t, before.goroutines)
}

func TestRandomLoadKeepsTheModelOverTheSocket(t *testing.T) {
	base := pool.NewBase(t)
	d := harness.StartDaemon(t, base, "--reuse-layers", "skip")
	sn := d.Snapshotter(t)
	harness.PullLayer(t, sn, "before", 1, "", harness.ChainID(1)) // what is opened once, is open
	harness.RemoveAll(t, sn)
	require.NoError(t, sn.Cleanup(context.Background()))
	ours, daemons := takeCensus(t, os.Getpid()), takeCensus(t, d.Cmd.Process.Pid)
	runLoad(t, base, sn)
	daemons.requireSame(t)
	ours.requireSame(t)
	requireGoroutines(t, ours.goroutines)
}

// runLoad puts the load on sn, removes everything and wants nothing to be left.
func runLoad(t *testing.T, base *testpool.Base, sn snapshots.Snapshotter) {
	operations, seed := 10_000, *loadSeed
	if testing.Short() {
		operations = 300
	}
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d", seed)
	began := time.Now()
	var wait sync.WaitGroup
	var busy atomic.Int64
	for id := range loadWorkers {
		w := &loadWorker{
			sn: sn, namespace: fmt.Sprintf("w%02d", id), r: rand.New(rand.NewPCG(seed, uint64(id))),
			own: make(map[string]loadSnap), adopted: make(map[string]string), busy: &busy,
		}
		wait.Go(func() {
			for n := range (operations + loadWorkers - 1) / loadWorkers {
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
		operations, loadWorkers, took.Round(time.Second/10), float64(operations)/took.Seconds(), busy.Load(),
		len(harness.Everything(t, sn)), len(base.Names(t)))
	harness.RemoveAll(t, sn)
	require.NoError(t, sn.(snapshots.Cleaner).Cleanup(context.Background()))
	require.Equal(t, []string{"", "/runtime", "/storage", "/storage/empty"}, base.Names(t), "seed %d", seed)
}
