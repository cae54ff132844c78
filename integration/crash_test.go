package integration

import (
	"flag"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/zfstpl/zfstpl/integration/crash"
	"github.com/zfstpl/zfstpl/integration/testpool"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

var (
	crashSeed   = flag.Uint64("crash.seed", 0, "repeat the choices of the `SEED` that the test logged; 0 chooses one")
	crashDaemon = flag.String("crash.daemon", "containerd-zfstpl-grpc-failpoint", "the `PROGRAM` that is killed, a daemon with failure points")
	crashTries  = flag.Int("crash.tries", 0, "kill so many `TIMES` within each call; 0 leaves it to -short")
)

// The daemon is killed before and after every call to ZFS of every operation, and within
// calls. While the next daemon recovers, it is killed again. Then the operation has happened
// or has not, the invariants hold, the operation can be completed or repeated, and after its
// snapshots are removed nothing is left.
//
// A short run kills at one point of each operation, once within a call, and at one point of
// each recovery, which the seed chooses; with the zfs command it takes one operation. With
// -matrix the two machines share the operations other than commits. A long run kills at each
// point and, in the recovery, once for each state of the pool.
//
// No other test runs at the same time, because it would change how long calls take. The
// cases run side by side, as many as there are processors.
func TestCrash(t *testing.T) {
	seed := *crashSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d", seed)
	clients := []zfs.Choice{zfs.Native, zfs.Command}
	if os.Getenv(testpool.ClientVariable) != "" {
		clients = []zfs.Choice{testpool.ClientChoice()}
	}
	for _, client := range clients {
		t.Run(string(client), func(t *testing.T) {
			rigs := crash.NewRigs(t, func(t testing.TB) *crash.Rig {
				return crash.NewRig(t, pool.NewBase(t), client, *crashDaemon)
			})
			cases := crash.Cases()
			if testing.Short() && client == zfs.Command && len(clients) > 1 {
				rand.New(rand.NewPCG(seed, 0)).Shuffle(len(cases), func(i, j int) { cases[i], cases[j] = cases[j], cases[i] })
				cases = cases[:1]
			}
			for i, c := range cases {
				sum := fnv.New64()
				fmt.Fprint(sum, client, c.Name)
				run := crash.NewRun(c, rand.New(rand.NewPCG(seed, sum.Sum64())), *crashTries)
				t.Run(c.Name, func(t *testing.T) {
					t.Parallel()
					if testing.Short() && !strings.Contains(c.Name, "commit") && len(cases) > 1 {
						onlyOnce(t, i%2 == 0, aCase) // every other operation
					}
					run.Everywhere(t, rigs)
				})
			}
		})
	}
}
