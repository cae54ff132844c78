package integration

import (
	"context"
	"flag"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/harness"
	"github.com/zfstpl/zfstpl/integration/load"
	"github.com/zfstpl/zfstpl/integration/testpool"
	"github.com/zfstpl/zfstpl/snapshotter"
)

var loadSeed = flag.Uint64("load.seed", 0, "repeat the load of the `SEED` that a test logged; 0 chooses one")

// After a random load, the snapshotter shows the snapshots of the model and the process has
// released everything. The test is not parallel, because it counts in the whole process.
func TestRandomLoadKeepsTheModelInProcess(t *testing.T) {
	base := pool.NewBase(t)
	before := load.TakeCensus(t, os.Getpid())
	sn, err := snapshotter.New(context.Background(), base.Client, snapshotter.Config{Base: base.Base, ReuseLayers: snapshotter.ReuseSkip})
	require.NoError(t, err)
	runLoad(t, base, sn)
	require.NoError(t, sn.Close())
	before.RequireReleased(t)
	load.RequireGoroutines(t, before.Goroutines)
}

// The same holds for a daemon.
func TestRandomLoadKeepsTheModelOverTheSocket(t *testing.T) {
	base := pool.NewBase(t)
	d := harness.StartDaemon(t, base, "--reuse-layers", "skip")
	sn := d.Snapshotter(t)
	harness.PullLayer(t, sn, "before", 1, "", harness.ChainID(1)) // opens what stays open
	harness.RemoveAll(t, sn)
	require.NoError(t, sn.Cleanup(context.Background()))
	ours, daemons := load.TakeCensus(t, os.Getpid()), load.TakeCensus(t, d.Cmd.Process.Pid)
	runLoad(t, base, sn)
	daemons.RequireReleased(t)
	ours.RequireReleased(t)
	load.RequireGoroutines(t, ours.Goroutines)
}

// runLoad runs the load with the seed of the flag, or with a random one.
func runLoad(t *testing.T, base *testpool.Base, sn snapshots.Snapshotter) {
	t.Helper()
	operations, seed := 10_000, *loadSeed
	if testing.Short() {
		operations = 300
	}
	if seed == 0 {
		seed = rand.Uint64()
	}
	load.Run(t, base, sn, seed, operations)
}
