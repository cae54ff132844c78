package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/zfstpl/zfstpl/integration/differ"
	"github.com/zfstpl/zfstpl/integration/harness"
	"github.com/zfstpl/zfstpl/integration/testpool"
	"github.com/zfstpl/zfstpl/integration/tied"
)

// The environment of the process that unpacks a layer and is killed.
const (
	childBase  = "ZFSTPL_TEST_CHILD_BASE"  // the base, by its short name
	childPool  = "ZFSTPL_TEST_CHILD_POOL"  // the pool and its directory, with a colon between
	childPoint = "ZFSTPL_TEST_CHILD_POINT" // the point to die at; 0: live, and report how many there are
	childSize  = "ZFSTPL_TEST_CHILD_SIZE"  // of the layer
)

// The process dies by SIGKILL before or after any call to ZFS while a layer that
// does not fit is thrown away, room is made for it and it is unpacked once more.
// Then the snapshot is there, or is not, never in part; nothing stays of it that is
// not garbage; and the layer can be pulled.
func TestKilledReclaimLeavesTheLayerOrNothing(t *testing.T) {
	onlyOnce(t, newerReleases, aQuota)
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	const size = 2 * harness.MiB // near a bound ZFS ends a txg for every few blocks
	points := 0
	rounds := []int{0}
	for i := 0; i < len(rounds); i++ {
		base := pool.NewBase(t)
		d := differ.New(t, base)
		cached, err := d.Pull(t, harness.ChainID(1), d.PushNoise(t, 1, size))
		require.NoError(t, err)
		require.NoError(t, d.Snapshotter.Remove(d.Context, cached))
		require.NoError(t, d.Snapshotter.Cleanup(d.Context))
		zfsCommand(t, "set", fmt.Sprintf("quota=%d", size*3/2), base.String())
		require.NoError(t, d.Snapshotter.Close())

		out, err := runChild(t, base, rounds[i], size)
		if rounds[i] == 0 {
			require.NoError(t, err, "%s", out)
			points, err = strconv.Atoi(strings.TrimSpace(out[strings.LastIndex(strings.TrimSpace(out), "\n")+1:]))
			require.NoError(t, err, "%s", out)
			rounds = append(rounds, somePoints(r, points)...)
		} else if err != nil {
			var exit *exec.ExitError
			require.ErrorAs(t, err, &exit)
			require.Equal(t, syscall.SIGKILL, exit.Sys().(syscall.WaitStatus).Signal(), "%s", out)
		}
		d.Open(t)
		require.NoError(t, d.Snapshotter.Cleanup(d.Context))
		base.Check(t)
		for name := range harness.Everything(t, d.Snapshotter) {
			assert.Contains(t, name, harness.ChainID(2), "at %d of %d", rounds[i], points)
		}
		harness.RemoveAll(t, d.Snapshotter)
		d.Serial += 100 // the child has counted on
		name, err := d.Pull(t, harness.ChainID(3), d.PushNoise(t, 3, size))
		require.NoError(t, err, "at %d of %d", rounds[i], points)
		harness.Mounted(t, d.View(t, name), func(root string) { requireNoise(t, root, 3, size) })
		harness.RemoveAll(t, d.Snapshotter)
		require.NoError(t, d.Snapshotter.Cleanup(d.Context))
		for _, name := range base.Names(t) {
			assert.NotContains(t, name, "/runtime/", "at %d of %d", rounds[i], points)
		}
	}
	t.Logf("%d points, died at %v", points, rounds[1:])
}

// somePoints are those to die at: all where there is time.
func somePoints(r *rand.Rand, n int) []int {
	all := r.Perm(n)
	if testing.Short() {
		all = all[:min(1, n)]
	}
	for i := range all {
		all[i]++
	}
	return all
}

func runChild(t *testing.T, base *testpool.Base, point int, size int64) (string, error) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run", "^TestChildUnpacks$", "-test.v")
	cmd.Env = append(os.Environ(),
		childPool+"="+pool.Name+":"+pool.Dir, childBase+"="+base.String()[len(pool.Name)+1:],
		childPoint+"="+strconv.Itoa(point), childSize+"="+strconv.FormatInt(size, 10))
	var out harness.ProgramLog
	cmd.Stdout, cmd.Stderr = out.Output(t), out.Output(t)
	err := tied.Run(cmd)
	count, _ := os.ReadFile(base.Root + "/points")
	_ = os.Remove(base.Root + "/points") // only one that lived has written it
	return out.String() + "\n" + string(count), err
}

// TestChildUnpacks is no test but what TestKilledReclaimLeavesTheLayerOrNothing runs as a process of
// its own: the one that is killed.
func TestChildUnpacks(t *testing.T) {
	if os.Getenv(childBase) == "" {
		return
	}
	name, dir, _ := strings.Cut(os.Getenv(childPool), ":")
	base := (&testpool.Pool{Name: name, Dir: dir}).OpenBase(t, os.Getenv(childBase))
	point, err := strconv.ParseInt(os.Getenv(childPoint), 10, 64)
	require.NoError(t, err)
	size, err := strconv.ParseInt(os.Getenv(childSize), 10, 64)
	require.NoError(t, err)
	d := &differ.Rig{Base: base, Context: namespaces.WithNamespace(context.Background(), "test"), Contents: differ.NewContents(t)}
	layer := d.PushNoise(t, 2, size)
	var passed atomic.Int64
	begun := false
	base.Client.Watch(func(string) {
		if begun && passed.Add(1) == point {
			_ = unix.Kill(os.Getpid(), unix.SIGKILL)
			select {} // the signal may come a moment later
		}
	})
	d.Open(t)
	begun = true
	_, err = d.Pull(t, harness.ChainID(2), layer)
	require.NoError(t, err)
	require.NoError(t, d.Snapshotter.Close())
	require.NoError(t, os.WriteFile(base.Root+"/points", fmt.Append(nil, passed.Load()), 0o600))
	require.NoError(t, base.Client.Close())
}
