package integration

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/zfstpl/zfstpl/integration/testpool"
)

var heldCount = flag.Int("held.count", 1000, "how many containers TestManyHeldMounts has")

// usedMemory returns the bytes that the kernel and all processes use, without what
// it can free at once.
func usedMemory(t testing.TB) int {
	t.Helper()
	require.NoError(t, os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0))
	text, err := os.ReadFile("/proc/meminfo")
	require.NoError(t, err)
	kib := make(map[string]int)
	for line := range strings.Lines(string(text)) {
		if words := strings.Fields(line); len(words) > 1 {
			kib[words[0]], _ = strconv.Atoi(words[1])
		}
	}
	return (kib["MemTotal:"] - kib["MemAvailable:"]) << 10
}

// A thousand stopped containers, and then as many whose root is mounted, are found
// again by a start. It prints what they cost: memory, the length of the mount table,
// and the time of a start.
func TestManyHeldMounts(t *testing.T) {
	if testing.Short() {
		t.Skip("takes minutes: 'make test-long' runs it")
	}
	ctx := context.Background()
	base := pool.NewBase(t)
	d := startDaemon(t, base)
	restart := func() time.Duration {
		d.stop(t)
		began := time.Now()
		d.start(t)
		return time.Since(began).Round(time.Millisecond)
	}
	each := func(do func(i int) error) {
		t.Helper()
		var g errgroup.Group
		g.SetLimit(8)
		for i := range *heldCount {
			g.Go(func() error { return do(i) })
		}
		require.NoError(t, g.Wait())
	}
	table := func() int {
		text, err := os.ReadFile("/proc/self/mountinfo")
		require.NoError(t, err)
		return len(text)
	}
	report := func(what string, memory int, start time.Duration) {
		t.Logf("%d containers, %s: %d KiB of memory each, a mount table of %d KiB, a start of the daemon in %s",
			*heldCount, what, memory/1024 / *heldCount, table()/1024, start)
	}
	sn := d.snapshotter(t)
	mounts := make([][]mount.Mount, *heldCount)
	each(func(i int) (err error) {
		mounts[i], err = sn.Prepare(ctx, fmt.Sprint(i), "")
		return err
	})
	require.NoError(t, testpool.Unmount(d.address))
	start := restart()
	none := usedMemory(t)
	report("nothing held", 0, start)

	var wrong atomic.Int64
	sn = d.snapshotter(t)
	each(func(i int) error {
		again, err := sn.Mounts(ctx, fmt.Sprint(i))
		if err == nil && again[0].Source != mounts[i][0].Source {
			wrong.Add(1)
		}
		return err
	})
	assert.Zero(t, wrong.Load())
	start = restart()
	report("held", usedMemory(t)-none, start)

	root := t.TempDir()
	each(func(i int) error {
		place := filepath.Join(root, fmt.Sprint(i))
		if err := os.Mkdir(place, 0o700); err != nil {
			return err
		}
		return mount.All(mounts[i], place)
	})
	start = restart()
	report("held, and mounted as running ones are", usedMemory(t)-none, start)
	each(func(i int) error { return mount.UnmountAll(filepath.Join(root, fmt.Sprint(i)), 0) })

	sn = d.snapshotter(t)
	each(func(i int) error { return sn.Remove(ctx, fmt.Sprint(i)) })
	require.NoError(t, sn.Cleanup(ctx))
	assert.Equal(t, []string{"", "/runtime", "/storage", "/storage/empty"}, base.Names(t))
	entries, err := os.ReadDir(filepath.Join(filepath.Dir(d.address), "mnt"))
	require.NoError(t, err)
	assert.Empty(t, entries)
}
